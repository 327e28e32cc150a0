/* SPDX-License-Identifier: GPL-2.0-only */
/* AF_INET on the loopback: states, urgent data, the end of a connection in every order, refusals, datagrams. */
#include "guest.h"

enum {
	CALL(socket, 41, 198), CALL(connect, 42, 203), CALL(accept4, 288, 242), CALL(sendto, 44, 206),
	CALL(recvfrom, 45, 207), CALL(sendmsg, 46, 211), CALL(recvmsg, 47, 212), CALL(shutdown, 48, 210),
	CALL(bind, 49, 200), CALL(listen, 50, 201), CALL(getsockname, 51, 204), CALL(getpeername, 52, 205),
	CALL(setsockopt, 54, 208), CALL(getsockopt, 55, 209), CALL(fcntl, 72, 25), CALL(ioctl, 16, 29), CALL(ppoll, 271, 73),
};
enum { AF_INET = 2, STREAM = 1, DGRAM = 2, NONBLOCK = 04000, SIGPIPE = 13, SIGURG = 23 };
enum { MSG_OOB = 1, MSG_PEEK = 2, MSG_TRUNC = 0x20, MSG_DONTWAIT = 0x40, MSG_WAITALL = 0x100, MSG_MORE = 0x8000 };
enum { F_GETFL = 3, F_SETFL, F_SETOWN = 8, SIOCINQ = 0x541b, SIOCATMARK = 0x8905 };
enum { SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_ERROR = 4, SO_OOBINLINE = 10, SO_LINGER = 13, SO_ACCEPTCONN = 30, SO_PEEK_OFF = 42 };

struct address { unsigned short family, port; unsigned ip; u8 zero[8]; };
static u8 data[70000];
static volatile int signals;

static void did(const char *what, long result)
{
	say("%s = %d", what, result);
	if (signals)
		say(" (signal %d)", (long)signals);
	signals = 0;
	say("\n");
}
static void caught(int signo, struct siginfo *info, u8 *context)
{
	(void)info;
	(void)context;
	signals = signo;
}
static struct address at(int port)
{
	return (struct address){ AF_INET, (port & 255) << 8 | port >> 8, 0x0100007f, { 0 } };
}
#define DO(call) did(#call, (int)(call))
#define RECV(fd, n, flags) sys(recvfrom, fd, data, n, flags, 0, 0)
#define SEND(fd, text, flags) sys(sendto, fd, text, sizeof(text) - 1, flags, 0, 0)

static long bind(long fd, struct address a)
{
	return sys(bind, fd, &a, sizeof a);
}
static long connect(long fd, struct address a)
{
	return sys(connect, fd, &a, sizeof a);
}
static long send_to(long fd, const void *bytes, long count, struct address a)
{
	return sys(sendto, fd, bytes, count, 0, &a, sizeof a);
}
static void ready(long fd)
{
	struct { int fd; short events, revents; } p = { fd, 0x7fff, 0 };
	long zero[2] = { 0, 0 }, n = sys(ppoll, &p, 1, zero, 0, 0);

	say("  poll %d: %x\n", n, (ulong)p.revents);
}
static void option(long fd, int level, int name)
{
	int value[8] = { -9 }, size = sizeof value;
	long error = sys(getsockopt, fd, level, name, value, &size);

	say("  option %d of %d: error %d, value %d\n", (long)name, (long)level, error, error ? 0 : (long)value[0]);
}
static void set(long fd, int level, int name, int value)
{
	say("  set %d of %d to %d: %d\n", (long)name, (long)level, (long)value,
	    sys(setsockopt, fd, level, name, &value, 4));
}
static void names(long fd)
{
	for (int peer = 0; peer < 2; peer++) {
		struct address a = { 0, 0, 0, { 0 } };
		int size = sizeof a;
		long error = peer ? sys(getpeername, fd, &a, &size) : sys(getsockname, fd, &a, &size);
		int port = (a.port & 255) << 8 | a.port >> 8;

		say("  %s: error %d, family %d, address %x, port %s, %d bytes\n", peer ? "peer" : "own", error,
		    (long)a.family, (ulong)a.ip, !port ? "none" : port < 10000 ? "known" : "some", (long)size);
	}
}
static void nothing_yet(void)
{
	long tcp = sys(socket, AF_INET, STREAM, 0), udp = sys(socket, AF_INET, DGRAM, 0);

	DO(sys(socket, AF_INET, STREAM, 17));
	DO(sys(socket, AF_INET, DGRAM, 6));
	DO(sys(socket, AF_INET, 5, 0));
	DO(sys(socket, AF_INET, 77, 0));
	DO(sys(socket, AF_INET, STREAM, 9999));
	names(tcp);
	names(udp);
	DO(sys(read, tcp, data, 1));
	DO(sys(write, tcp, data, 1));
	DO(RECV(tcp, 1, 0));
	DO(sys(listen, udp, 1));
	DO(sys(accept4, tcp, 0, 0, 0));
	DO(sys(accept4, udp, 0, 0, 0));
	DO(sys(shutdown, udp, 0));
	DO(sys(shutdown, tcp, 9));
	DO(SEND(udp, "x", 0));
	ready(tcp);
	ready(udp);
	DO(sys(shutdown, tcp, 2));
	ready(tcp);
	sys(close, tcp);
	sys(close, udp);
}
/* A listener at port 7777. */
static long listener(void)
{
	struct address a = at(7777), bad = a, far = a;
	long fd = sys(socket, AF_INET, STREAM, 0), second = sys(socket, AF_INET, STREAM, 0);

	bad.family = 77;
	far.ip = 0x04030201;
	DO(sys(bind, fd, &a, 4));
	DO(bind(fd, bad));
	DO(bind(fd, far));
	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	DO(bind(fd, a));
	DO(bind(fd, a));
	DO(sys(listen, fd, 5));
	option(fd, SOL_SOCKET, SO_ACCEPTCONN);
	ready(fd);
	DO(bind(second, a));
	set(second, SOL_SOCKET, SO_REUSEADDR, 1);
	DO(bind(second, a));
	DO(connect(fd, a));
	sys(close, second);
	return fd;
}
static long client, server;

static void join(long from)
{
	struct address a = at(7777);

	client = sys(socket, AF_INET, STREAM, 0);
	CHECK(connect(client, a) == 0);
	server = sys(accept4, from, 0, 0, 0);
	CHECK(server >= 0);
}
static void part(void)
{
	sys(close, client);
	sys(close, server);
}
static void connecting(long from)
{
	struct address a = at(7777), local = a, peer;
	int size = sizeof peer;

	local.family = 1;
	client = sys(socket, AF_INET, STREAM | NONBLOCK, 0);
	DO(sys(connect, client, &a, 3));
	DO(connect(client, local));
	DO(connect(client, a));
	sleep_ms(2);
	ready(client);
	ready(from);
	DO(connect(client, a));
	DO(connect(client, a));
	server = sys(accept4, from, &peer, &size, 0);
	names(client);
	names(server);
	ready(server);
	DO(sys(fcntl, from, F_SETFL, NONBLOCK));
	DO(sys(accept4, from, 0, 0, 0));
	DO(sys(fcntl, from, F_SETFL, 0));
	DO(SEND(client, "hello", 0));
	DO(sys(ioctl, server, SIOCINQ, data));
	DO(*(int *)data);
	DO(RECV(server, 3, MSG_PEEK));
	DO(RECV(server, 3, 0));
	DO(RECV(server, 100, MSG_WAITALL | MSG_DONTWAIT));
	DO(RECV(server, 100, MSG_DONTWAIT));
	DO(SEND(client, "abc", MSG_MORE));
	DO(SEND(client, "d", 0));
	DO(RECV(server, 10, MSG_TRUNC));
	part();
}
static void mark(void)
{
	int value = -1;

	DO(sys(ioctl, server, SIOCINQ, &value));
	say("  to read %d\n", (long)value);
	DO(sys(ioctl, server, SIOCATMARK, &value));
	say("  at the mark %d\n", (long)value);
	ready(server);
}
static void urgent(long from)
{
	join(from);
	long me = sys(getpid);

	sys(fcntl, server, F_SETOWN, me);
	DO(SEND(client, "u", MSG_OOB));
	mark();
	DO(RECV(server, 1, MSG_OOB | MSG_PEEK));
	DO(RECV(server, 1, MSG_OOB));
	say("  %c\n", data[0]);
	mark();
	DO(RECV(server, 1, MSG_OOB));
	DO(RECV(server, 10, MSG_DONTWAIT));
	DO(SEND(client, "12!", MSG_OOB));
	DO(SEND(client, "45", 0));
	mark();
	DO(RECV(server, 10, MSG_PEEK));
	DO(RECV(server, 10, 0));
	mark();
	DO(RECV(server, 10, 0));
	say("  %c%c\n", data[0], data[1]);
	DO(SEND(client, "one", MSG_OOB));
	DO(SEND(client, "two", MSG_OOB));
	mark();
	DO(RECV(server, 10, 0));
	DO(RECV(server, 10, MSG_OOB));
	say("  %c\n", data[0]);
	DO(RECV(server, 10, MSG_DONTWAIT));
	set(server, SOL_SOCKET, SO_OOBINLINE, 1);
	DO(SEND(client, "xy", MSG_OOB));
	mark();
	DO(RECV(server, 10, 0));
	DO(RECV(server, 10, MSG_OOB));
	mark();
	DO(RECV(server, 10, MSG_DONTWAIT));
	part();
}
static void half_closed(long from)
{
	join(from);
	DO(sys(shutdown, client, 1));
	ready(client);
	ready(server);
	DO(RECV(server, 1, 0));
	DO(sys(write, client, data, 1));
	DO(sys(write, server, "q", 1));
	DO(RECV(client, 10, 0));
	DO(sys(shutdown, client, 1));
	DO(sys(shutdown, server, 0));
	ready(server);
	DO(sys(close, server));
	sleep_ms(2);
	ready(client);
	DO(RECV(client, 1, 0));
	DO(sys(shutdown, client, 0));
	DO(sys(write, client, data, 1));
	names(client);
	struct address a = at(7777);

	DO(connect(client, a));
	sys(close, client);
}
static void resets(long from)
{
	int linger[2] = { 1, 0 };

	join(from);
	DO(sys(write, client, "data", 4));
	DO(sys(setsockopt, server, SOL_SOCKET, SO_LINGER, linger, 8));
	DO(sys(close, server));
	sleep_ms(2);
	ready(client);
	option(client, SOL_SOCKET, SO_ERROR);
	DO(RECV(client, 1, 0));
	DO(sys(write, client, data, 1));
	names(client);
	sys(close, client);
	say("closed with data unread\n");
	join(from);
	DO(sys(write, client, "data", 4));
	DO(sys(close, server));
	sleep_ms(2);
	DO(RECV(client, 1, 0));
	DO(RECV(client, 1, 0));
	DO(sys(write, client, data, 1));
	sys(close, client);
	say("closed, then written to\n");
	join(from);
	DO(sys(close, server));
	sleep_ms(2);
	DO(sys(write, client, data, 1));
	sleep_ms(2);
	DO(sys(write, client, data, 1));
	DO(RECV(client, 1, 0));
	ready(client);
	sys(close, client);
}
static void refused(void)
{
	struct address nobody = at(7778), a = at(7777), none = { 0, 0, 0, { 0 } };

	client = sys(socket, AF_INET, STREAM, 0);
	DO(connect(client, nobody));
	option(client, SOL_SOCKET, SO_ERROR);
	DO(connect(client, nobody));
	DO(sys(write, client, data, 1));
	ready(client);
	DO(connect(client, a));
	DO(connect(client, none));
	names(client);
	sys(close, client);
	client = sys(socket, AF_INET, STREAM | NONBLOCK, 0);
	DO(connect(client, nobody));
	sleep_ms(2);
	ready(client);
	option(client, SOL_SOCKET, SO_ERROR);
	option(client, SOL_SOCKET, SO_ERROR);
	ready(client);
	sys(close, client);
}
static void show_control(long fd)
{
	struct { void *base; ulong size; } area = { data, 100 };
	ulong control[32] = { 0 };
	struct { void *name; int size, pad; void *areas; ulong count; void *control; ulong length; int flags, pad2; } message = {
		0, 0, 0, &area, 1, control, sizeof control, 0, 0 };

	DO(sys(recvmsg, fd, &message, 0));
	say("  flags %x, %d bytes of control messages\n", (ulong)message.flags, message.length);
	for (ulong i = 0; i < message.length / 8; i++)
		say("   %x\n", control[i]);
}
static void datagrams(void)
{
	struct address a = at(7780), b = at(7781), far = at(7780), zero = at(0), from;
	int size = sizeof from;
	long one = sys(socket, AF_INET, DGRAM, 0), two = sys(socket, AF_INET, DGRAM | NONBLOCK, 0);

	far.ip = 0xffffffff;
	DO(bind(one, a));
	DO(send_to(two, "to", 2, zero));
	DO(send_to(two, "to", 2, far));
	DO(send_to(two, data, 65508, a));
	DO(send_to(two, "hello", 5, a));
	names(two);
	DO(sys(ioctl, one, SIOCINQ, data));
	DO(sys(ioctl, one, SIOCATMARK, data));
	DO(RECV(one, 2, MSG_PEEK | MSG_TRUNC));
	DO(sys(recvfrom, one, data, 2, 0, &from, &size));
	DO(bind(two, b));
	DO(connect(two, b));
	DO(SEND(two, "self", 0));
	DO(SEND(two, "self", 0));
	DO(RECV(two, 10, 0));
	b = at(7779);
	DO(connect(two, b));
	DO(SEND(two, "nobody", 0));
	ready(two);
	option(two, SOL_SOCKET, SO_ERROR);
	DO(SEND(two, "nobody", 0));
	DO(SEND(two, "nobody", 0));
	DO(RECV(two, 1, 0));
	DO(connect(two, a));
	set(two, 17, 1, 1);
	DO(SEND(two, "held ", 0));
	ready(one);
	DO(SEND(two, "back", 0));
	set(two, 17, 1, 0);
	DO(RECV(one, 100, 0));
	DO(SEND(two, "more ", MSG_MORE));
	DO(SEND(two, "or less", 0));
	DO(RECV(one, 100, 0));
	set(two, 17, 103, 3);
	DO(SEND(two, "abcdefgh", 0));
	for (int i = 0; i < 3; i++)
		DO(RECV(one, 100, 0));
	set(two, 17, 103, 0);
	set(one, 0, 8, 1);
	set(one, 0, 12, 1);
	set(one, 0, 13, 1);
	set(two, 0, 2, 7);
	set(two, 0, 1, 0x10);
	DO(SEND(two, "control", 0));
	show_control(one);
	DO(SEND(two, "abcdef", 0));
	set(one, SOL_SOCKET, SO_PEEK_OFF, 2);
	DO(RECV(one, 2, MSG_PEEK));
	DO(RECV(one, 100, MSG_PEEK));
	option(one, SOL_SOCKET, SO_PEEK_OFF);
	DO(RECV(one, 100, 0));
	option(one, SOL_SOCKET, SO_PEEK_OFF);
	DO(sys(shutdown, two, 1));
	DO(SEND(two, "x", 0));
	ready(two);
	DO(sys(shutdown, two, 0));
	ready(two);
	DO(RECV(two, 1, 0));
	sys(close, one);
	sys(close, two);
}
static void options(void)
{
	static const short tcp[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 18, 23, 25, 30 }, ip[] = { 1, 2, 8, 10, 11, 12, 15, 21, 24, 34 };
	static const int values[] = { -2, -1, 0, 1, 2, 64, 127, 128, 255, 256, 32767, 32768, 70000 };

	for (int kind = STREAM; kind <= DGRAM; kind++)
		for (int i = 0; i < 25; i++) {
			int level = i < 15 ? 6 : 0, name = i < 15 ? tcp[i] : ip[i - 15];
			long fd = sys(socket, AF_INET, kind, 0);

			if (kind == DGRAM && i < 14)
				name = 0;
			option(fd, level, name);
			for (int v = 0; v < 13; v++) {
				int now = -9, size = 4;
				long error = sys(setsockopt, fd, level, name, &values[v], 4);

				sys(getsockopt, fd, level, name, &now, &size);
				say(" %d: %d %d;", (long)values[v], error, (long)now);
			}
			say("\n");
			sys(close, fd);
		}
}
static int run(void)
{
	handle(SIGPIPE, caught, SA_SIGINFO, 0);
	handle(SIGURG, caught, SA_SIGINFO, 0);
	nothing_yet();
	long from = listener();

	connecting(from);
	urgent(from);
	half_closed(from);
	resets(from);
	refused();
	DO(sys(shutdown, from, 0));
	ready(from);
	DO(sys(accept4, from, 0, 0, 0));
	sys(close, from);
	datagrams();
	options();
	return 0;
}
