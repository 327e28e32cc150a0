exec 2>&1
cat <<END > /tmp/a
first
second
END
cat /tmp/a /tmp/a
cat < /tmp/a | cat - /tmp/a
cat -n /tmp/a
cat /tmp/none 2>&1
echo status $?
