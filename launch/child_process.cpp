#include "launch/child_process.h"

#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "runtime/error.h"

namespace caravan {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::array kPassedOn = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT};
constexpr timespec kWaitInterval = {.tv_sec = 0, .tv_nsec = 100'000'000};

// A shell without job control starts background jobs that ignore INT: that stays so.
bool is_ignored(int signal) {
  struct sigaction action {};
  sigaction(signal, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

// None where the kernel does not list them.
std::vector<pid_t> children() {
  std::ifstream file("/proc/thread-self/children");
  std::vector<pid_t> found;
  for (pid_t child; file >> child;) found.push_back(child);
  return found;
}

}  // namespace

ChildProcess::ChildProcess() {
  sigemptyset(&watched_);
  sigaddset(&watched_, SIGCHLD);
  for (const int signal : kPassedOn) {
    if (!is_ignored(signal)) sigaddset(&watched_, signal);
  }
  std::signal(SIGCHLD, SIG_DFL);  // inherited as ignored, it would take the exit codes away
  pthread_sigmask(SIG_BLOCK, &watched_, &original_mask_);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  others_ = children();
}

ChildProcess::~ChildProcess() {
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  pthread_sigmask(SIG_SETMASK, &original_mask_, nullptr);
}

int ChildProcess::run(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setsigmask(&attributes, &original_mask_);
  const int error =
      posix_spawnp(&child_, arguments[0], nullptr, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    child_ = 0;
    throw config_error(absl::StrFormat("cannot start '%s': %s; give a program that is in PATH",
                                       command[0], std::strerror(error)));
  }
  while (child_ != 0) {
    siginfo_t signal{};
    if (sigwaitinfo(&watched_, &signal) > 0) receive(signal);
  }
  return WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
}

void ChildProcess::receive(const siginfo_t& signal) {
  if (signal.si_signo == SIGCHLD) return reap();
  if (signal.si_signo != SIGUSR2) stop_signal_ = signal.si_signo;
  if (child_ != 0 && signal.si_code != SI_KERNEL) kill(child_, signal.si_signo);
}

// One CHLD may stand for several ends.
void ChildProcess::reap() {
  int status = 0;
  for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (ended != child_) continue;
    status_ = status;
    child_ = 0;
  }
}

std::vector<pid_t> ChildProcess::leftovers() {
  reap();
  std::vector<pid_t> found = children();
  std::erase_if(found, [this](pid_t child) { return std::ranges::count(others_, child) > 0; });
  return found;
}

void ChildProcess::clear_leftovers(std::chrono::seconds patience) {
  if (wait_until(patience, [this] { return leftovers().empty(); })) return;
  // Each may leave children of its own, which are ours then: hence every time anew.
  wait_until(10s, [&] {
    const std::vector<pid_t> alive = leftovers();
    for (const pid_t child : alive) kill(child, SIGKILL);
    return alive.empty();
  });
}

bool ChildProcess::wait_until(std::chrono::duration<double> limit,
                              const std::function<bool()>& is_ready) {
  const auto deadline = Clock::now() + limit;
  while (!is_ready()) {
    if (Clock::now() >= deadline) return false;
    siginfo_t signal{};
    if (sigtimedwait(&watched_, &signal, &kWaitInterval) > 0) receive(signal);
  }
  return true;
}

}  // namespace caravan
