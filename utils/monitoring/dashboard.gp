# dashboard.gp - draws the dashboard's panels over time from a real Prometheus's answers to their queries.
#
# tests/unit/ocsp-monitoring.tcl writes the answers, FOLDER/panel-N.dat: a block a server, lines of time and value; in
# panel 1 of time, value and how long it stayed. Variables: folder, out, panels (titles, separated by "|"), units (of
# each panel), servers (names).
#
# SPDX-License-Identifier: BSD-3-Clause

set terminal svg size 1000,900 font "sans,13" background "white"
set output out
count = words(units)
part(text, i) = (n = strstrt(text, "|"), i == 1 || n == 0 ? (n == 0 ? text : text[1:n-1]) : part(text[n+1:*], i - 1))
set multiplot layout 3,2 title "OCSP staples of TLS servers: the dashboard's queries in Prometheus" font ",16"
set lmargin 9
set rmargin 3
set border 3
set tics nomirror out font ",11"
set xtics 0,50
set xrange [0:150]
set key outside bottom center horizontal samplen 2 maxrows 1
array color[4] = ["#009e73", "#d55e00", "#0072b2", "#cc79a7"]

# State: a row a server; green good, yellow warning, red critical, purple unknown.
set title part(panels, 1)
set xlabel "seconds" offset 0,0.6
rows = words(servers)
set yrange [0.5:rows + 0.5]
set ytics () scale 0
do for [i = 1:rows] { set ytics add (word(servers, i) i) }
unset key
array state[4] = ["#2ca02c", "#f2cc0c", "#d62728", "#9467bd"]
plot for [v = 0:3] for [i = 1:rows] folder."/panel-1.dat" index word(servers, i) \
    using 1:($2 == v ? i : NaN):3:(0) with vectors nohead lw 14 lc rgb state[v + 1]

set key
set yrange [0:*]
set ytics auto scale 1
do for [p = 2:count] {
    set title part(panels, p)
    set ylabel word(units, p)
    plot for [i = 1:rows] sprintf("%s/panel-%d.dat", folder, p) index word(servers, i) using 1:2 \
        with lines lw 2 lc rgb color[i] title word(servers, i)
}
unset multiplot
