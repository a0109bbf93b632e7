// What Swift's Glibc module leaves out of Linux. No feature macro is set here: the headers that both modules read must
// mean the same in both.
#pragma once
#include <malloc.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

// glibc declares it for _GNU_SOURCE only.
extern int accept4(int, struct sockaddr *__restrict, socklen_t *__restrict, int);
// Blocks from this size on get a mapping of their own; setting it stops malloc from raising it.
static inline int clinux_map_blocks_from(int bytes) { return mallopt(M_MMAP_THRESHOLD, bytes); }
// Gives what is free in malloc's heaps back to the system.
static inline void clinux_trim(void) { malloc_trim(0); }
static inline int clinux_epoll_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *limit) {
  return epoll_pwait2(epoll, events, count, limit, 0);
}
static inline int clinux_accept(int listener) { return accept4(listener, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK); }
