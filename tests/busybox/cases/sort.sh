exec 2>&1
cd /tmp
seq 1 200 | awk '{print ($1 * 7919) % 211, "line", $1}' > in
sort in | head -5
sort -n in | head -5
sort -rn in | head -3
sort -k3,3n in | tail -2
sort -u -k2,2 in | wc -l
seq 3 -1 1 | sort | uniq -c | awk '{print $1, $2}'
cut -d' ' -f1 in | sort -n | md5sum
