exec 2>&1
echo hello, world
echo -n no newline; echo
echo -e 'tab\there\\n and \0101'
printf '%5d|%-5s|%05.1f|%x\n' 42 ab 3.14159 255
