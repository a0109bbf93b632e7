#define _GNU_SOURCE
#include "CSpawn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { descriptor_close_on_exec = 1 << 2 };  // CLOSE_RANGE_CLOEXEC of linux/close_range.h

// The child's half. The parent may have many threads: from here to exec only async-signal-safe calls.
static void become(
    const char *path, char *const *argv, char *const *envp, int log_fd, pid_t parent, int report) {
  int failure = 0;
  for (int number = 1; number < NSIG; number++) {
    struct sigaction usual = {.sa_handler = SIG_DFL};
    sigaction(number, &usual, NULL);
  }
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) failure = errno;
  if (getppid() != parent) _exit(127);  // it died before the line above
  setpgid(0, 0);
  int nothing = open("/dev/null", O_RDONLY);
  if (!failure && (nothing < 0 || dup2(nothing, 0) < 0)) failure = errno;
  if (!failure && (dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0)) failure = errno;
  if (!failure) {
    close_range(3, ~0U, descriptor_close_on_exec);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(path, argv, envp);
    failure = errno;
  }
  while (write(report, &failure, sizeof failure) < 0 && errno == EINTR) {
  }
  _exit(127);
}

static void wait_for(pid_t child) {
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
  }
}

int cspawn_start(
    const char *path, char *const *argv, char *const *envp, int log_fd, int *pid, int *pidfd) {
  // The write end closes itself on exec: an end of file means that exec succeeded, an int is the errno if it did not.
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return errno;
  pid_t parent = getpid();
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t child = fork();
  if (child == 0) become(path, argv, envp, log_fd, parent, report[1]);
  int failure = child < 0 ? errno : 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  close(report[1]);
  if (child > 0) {
    int told = 0;
    ssize_t got;
    while ((got = read(report[0], &told, sizeof told)) < 0 && errno == EINTR) {
    }
    if (got == sizeof told) {
      failure = told;
      wait_for(child);
    } else {
      *pid = child;
      *pidfd = pidfd_open(child, 0);
      if (*pidfd < 0) {
        failure = errno;
        kill(child, SIGKILL);
        wait_for(child);
      }
    }
  }
  close(report[0]);
  return failure;
}

int cspawn_reap(int pidfd, int *exited, int *status) {
  siginfo_t info = {0};
  if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) != 0) return -errno;
  if (info.si_pid == 0) return 0;
  *exited = info.si_code == CLD_EXITED;
  *status = info.si_status;
  return 1;
}

int cspawn_signal(int pidfd, int number) {
  return pidfd_send_signal(pidfd, number, NULL, 0) == 0 ? 0 : errno;
}
