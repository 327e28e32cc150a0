exec 2>&1
for i in a b c; do echo -n "$i"; done; echo
i=0; while [ $i -lt 5 ]; do i=$((i + 1)); [ $i = 3 ] && continue; echo -n "$i "; done; echo
until [ $i = 0 ]; do i=$((i - 1)); done; echo $i
for f in /tmp/*none; do echo "$f"; done
f() { local x=$1; [ $x -le 1 ] && echo 1 || echo $((x * $(f $((x - 1))))); }
f 6
case pagewalk in page*) echo matched;; *) echo not;; esac
n=0; for i in $(seq 1 300); do n=$((n + i)); done; echo $n
x=abc.def.ghi; echo ${x%.*} ${x##*.} ${#x} ${y:-unset}
set -- 1 2 3; shift; echo $# $@
while read a b; do echo "$b $a"; done <<END
1 one
2 two
END
break 2>/dev/null; echo end
