// Starting a child that cannot outlive its parent, and following it by a pidfd. posix_spawn has no place for prctl, and
// Swift may not fork. Nothing is included here: under _GNU_SOURCE, glibc's headers clash with the ones Foundation sees.
#pragma once

// Starts `path` with its output and errors appended to `log_fd`, input from /dev/null, in a process group of its own
// (so that Ctrl-C in the terminal reaches the supervisor alone), every other descriptor closed, signals at default.
// PR_SET_PDEATHSIG fires when the calling *thread* ends: call it from one that lives as long as the process.
// Returns 0 with `*pid` and `*pidfd` set, or the errno of the step that failed, with nothing left behind.
int cspawn_start(
    const char *path, char *const *argv, char *const *envp, int log_fd, int *pid, int *pidfd);

// Reaps the child behind a pidfd if it has ended. Returns 1 with `*exited` (1 = by exit, 0 = by signal) and `*status`
// (exit code or signal number) set, 0 while it runs, -errno on failure.
int cspawn_reap(int pidfd, int *exited, int *status);

// Sends a signal through a pidfd. Returns 0 or an errno.
int cspawn_signal(int pidfd, int number);
