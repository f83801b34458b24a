# plot.gp - draws fleet.svg from fleet.c's data. Run it in the directory of the data.
#
# SPDX-License-Identifier: BSD-3-Clause

set terminal svg size 1000,1250 font "sans,13" background "white"
set output "fleet.svg"
set multiplot layout 4,1 title "Requests per minute at the CA of 100,000 nodes that start in the same minute" \
    font ",16"
set lmargin 10
set rmargin 3
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror out
set key outside top right horizontal samplen 2

# Four weeks: the busiest minute of each half hour.
set logscale y
set yrange [1:200000]
set ytics ("1" 1, "10" 10, "100" 100, "1,000" 1000, "10,000" 10000, "100,000" 100000)
set xrange [0:28]
set xtics 0,2,28
set xlabel "days" offset 0,0.6

weeks(title_, file) = sprintf("set title '%s'; plot '%s' using 1:($2 > 0 ? $2 : NaN) with impulses lw 1.5 lc rgb '#d55e00' \
title 'without jitter', '' using 1:($3 > 0 ? $3 : NaN) with impulses lw 1.2 lc rgb '#0072b2' title 'with jitter', \
2000 with lines dt 2 lc rgb '#666666' title '50 times lower'", title_, file)
eval weeks("signed on demand, valid for 7 days, margin 10 %", "demand-7-10.dat")
eval weeks("signed in advance every half day, valid for 1 day, margin 50 %", "half-1-50.dat")

# The outage, minute by minute.
unset logscale y
set yrange [0:*]
set ytics auto
set format y "%'.0f"
set xrange [-3:7]
set xtics -3,1,7
set xlabel "hours since the start of the CA's outage of two hours" offset 0,0.6
set style rect fc rgb "#f0f0f0" fs solid noborder
set object 1 rect from 0, graph 0 to 2, graph 1 behind
outage(title_, file) = sprintf("stats '%s' using ($1 >= 2 && $1 < 3 ? $2 : NaN) nooutput; set title '%s'; \
plot '%s' using 1:2 with steps lw 1.3 lc rgb '#0072b2' title 'requests', \
'+' using ($1 >= 2 && $1 <= 3 ? $1 : NaN):(3 * STATS_mean) with lines dt 2 lc rgb '#d55e00' \
title '3 times the mean of the hour after'", \
    file, title_, file)
eval outage("signed on demand, valid for 1 day, margin 10 %: outage of the CA", "demand-1-10-outage.dat")
eval outage("signed in advance every half day, valid for 1 day, margin 50 %: outage of the CA", "half-1-50-outage.dat")
unset multiplot
