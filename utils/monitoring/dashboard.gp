# dashboard.gp - draws the dashboard's panels over time from a real Prometheus's answers to their queries, which
# tests/unit/ocsp-monitoring.tcl writes: FOLDER/panel-N.dat, one block a server. Variables: folder, out, panels (titles,
# separated by "|"), units, servers (names, separated by "|").
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
set tics nomirror out
set grid ytics lc rgb "#dddddd"
set xrange [0:150]

set key outside bottom center horizontal samplen 2
array color[4] = ["#009e73", "#d55e00", "#0072b2", "#cc79a7"]

# State: a row a server; green good, yellow warning, red critical, purple unknown.
set title part(panels, 1)
rows = words(servers)
set yrange [0.5:rows + 0.5]
set ytics () scale 0
do for [i = 1:rows] { set ytics add (word(servers, i) i) }
unset key
state(v) = v == 0 ? 0x2ca02c : v == 1 ? 0xf2cc0c : v == 2 ? 0xd62728 : 0x9467bd
plot for [i = 1:rows] folder."/panel-1.dat" index word(servers, i) using 1:(i):(state($2)) with points pt 5 ps 1.1 lc rgb variable

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
