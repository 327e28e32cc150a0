exec 2>&1
printf 'one\ntwo\nthree\nfour\n' > /tmp/s
sed -n '2,3p' /tmp/s
sed 's/\(.\)o/<\1O>/g; /four/d' /tmp/s
sed -e '1!G;h;$!d' /tmp/s
sed -i 's/t/T/' /tmp/s && cat /tmp/s
sed '=' /tmp/s | sed 'N;s/\n/ /'
echo hello | sed 'y/el/ip/'
