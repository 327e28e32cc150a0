exec 2>&1
printf 'alpha\nbeta\ngamma\ndelta\n' > /tmp/g
grep a$ /tmp/g
grep -v a$ /tmp/g; echo status $?
grep -c m /tmp/g
grep -n -E '^(a|d).*' /tmp/g
grep -o 'l.' /tmp/g
grep -i ALPHA /tmp/g
mkdir -p /tmp/gd/x && cp /tmp/g /tmp/gd/x/f && grep -rl gam /tmp/gd
seq 1 5000 | grep -c 7
