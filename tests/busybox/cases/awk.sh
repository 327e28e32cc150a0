exec 2>&1
cd /tmp
seq 1 1000 | awk '{ s += $1; q += $1 * $1 } END { print s, q, s / NR }'
awk 'BEGIN { for (i = 0; i < 10; i++) f[i] = i < 2 ? i : f[i-1] + f[i-2]; for (i = 0; i < 10; i++) printf "%d ", f[i]; print "" }'
printf 'a:1\nb:2\na:3\n' | awk -F: '{ t[$1] += $2 } END { for (k in t) print k, t[k] }' | sort
awk 'BEGIN { printf "%.6f %.3e %d\n", 1 / 3, 1e30 * 7, 17 % 5; print substr("pagewalk", 5), toupper("x"), index("abc", "c"), length("four") }'
printf 'one two\nthree\n' | awk '{ gsub(/o/, "0"); print NF ": " $0 }'
awk 'BEGIN { while (("echo a; echo b" | getline line) > 0) n++; print n; system("echo from system") }'
