# stats.tcl - the statistics of `make bench`, and its JSON. Sourced by run.tcl.
#
#   median LIST, percentile LIST P      of any order
#   signInterval LIST                   {low high}: a 95 % confidence interval of the median, for any
#                                       distribution (the order statistics of the sign test)
#   bootstrapRatio A B P                A, B: lists of the rounds' lists. {ratio low high} of the P-th percentiles of
#                                       all values together; the interval by resampling rounds, in pairs
#   jsonRecord DICT                     a flat dict as a JSON object
#   ratioText RATIO LOW HIGH            for the table; notes if the interval contains 1
#
# SPDX-License-Identifier: BSD-3-Clause

proc percentile {list p} {
    set sorted [lsort -real $list]
    set i [expr {int([llength $sorted] * $p / 100.0)}]
    return [lindex $sorted [expr {min($i, [llength $sorted] - 1)}]]
}

proc median {list} {
    set sorted [lsort -real $list]
    set n [llength $sorted]
    return [expr {([lindex $sorted [expr {($n - 1) / 2}]] + [lindex $sorted [expr {$n / 2}]]) / 2.0}]
}

proc signInterval {list} {
    set sorted [lsort -real $list]
    set n [llength $sorted]
    # How many of the lowest values to skip: as long as so few of n fall below the median with less than 2.5 %.
    set probability [expr {pow(0.5, $n)}]
    set sum 0.0
    for {set out 0} {$out < $n / 2} {incr out} {
        set sum [expr {$sum + $probability}]
        if {$sum > 0.025} break
        set probability [expr {$probability * ($n - $out) / ($out + 1)}]
    }
    set out [expr {max($out - 1, 0)}]
    return [list [lindex $sorted $out] [lindex $sorted [expr {$n - 1 - $out}]]]
}

proc bootstrapRatio {a b p} {
    set n [llength $a]
    set ratio [expr {double([percentile [concat {*}$a] $p]) / [percentile [concat {*}$b] $p]}]
    set drawn {}
    for {set i 0} {$i < 200} {incr i} {
        set all_a {}
        set all_b {}
        for {set k 0} {$k < $n} {incr k} {
            set pick [expr {int(rand() * $n)}]
            lappend all_a {*}[lindex $a $pick]
            lappend all_b {*}[lindex $b $pick]
        }
        lappend drawn [expr {double([percentile $all_a $p]) / [percentile $all_b $p]}]
    }
    return [list $ratio [percentile $drawn 2.5] [percentile $drawn 97.5]]
}

# Formats a ratio with its interval and whether it differs from 1.
proc ratioText {ratio low high} {
    set noise [expr {$low <= 1 && $high >= 1 ? ", within the noise" : ""}]
    return [format "%.4f (%.4f to %.4f%s)" $ratio $low $high $noise]
}

proc jsonText {text} {
    return "\"[string map {\\ \\\\ \" \\\" \n \\n \t \\t \r ""} $text]\""
}

# Formats a flat dict as a JSON object. Values that look like numbers become numbers.
proc jsonRecord {record} {
    set members {}
    dict for {name value} $record {
        if {[string is double -strict $value] && ![string match -nocase *n* $value]} {
            lappend members "[jsonText $name]: [expr {$value}]"
        } else {
            lappend members "[jsonText $name]: [jsonText $value]"
        }
    }
    return "{[join $members {, }]}"
}
