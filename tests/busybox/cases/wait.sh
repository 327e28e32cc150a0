exec 2>&1
sleep 0.05 & a=$!
(exit 5) & b=$!
wait $b; echo $?
wait $a; echo $?
for i in 1 2 3; do (sleep 0.0$i; echo $i) & done; wait; echo all
sleep 100 & p=$!
kill $p; wait $p; echo $?
trap 'echo caught' USR1
kill -USR1 $$
(sleep 0.02; kill -USR1 $$) & wait; echo after
wait; echo done
timeout 0.05 sleep 10; echo $?
