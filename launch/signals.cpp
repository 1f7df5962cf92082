#include "launch/signals.h"

#include <unistd.h>

#include <csignal>

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr timespec kLookInterval = {.tv_sec = 0, .tv_nsec = 200'000'000};  // for the request to end

constexpr std::chrono::seconds kSecondRequest{2};  // sooner, it is the first one again

sigset_t watched_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  sigaddset(&signals, SIGUSR2);
  sigaddset(&signals, SIGTERM);
  return signals;
}

constexpr int kExitAfterTerm = 128 + SIGTERM;

}  // namespace

SignalWatch::SignalWatch() {
  const sigset_t signals = watched_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
}

// Whatever the process does after this, TERM ends it.
SignalWatch::~SignalWatch() {
  thread_.request_stop();
  thread_.join();
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_UNBLOCK, &term, nullptr);
}

void SignalWatch::watch(const std::stop_token& stop) {
  const sigset_t signals = watched_signals();
  while (!stop.stop_requested()) {
    const int signal = sigtimedwait(&signals, nullptr, &kLookInterval);
    if (signal > 0) receive(signal);
  }
}

void SignalWatch::receive(int signal) {
  const auto now = std::chrono::steady_clock::now();
  if (signal == SIGTERM) {
    if (ignores_term_) return;
    has_term_ = true;
    std::this_thread::sleep_for(last_words_.load());
    _exit(kExitAfterTerm);
  }
  if (signal == SIGUSR2) {
    SignalRequest none = SignalRequest::none;
    pending_.compare_exchange_strong(none, SignalRequest::save);
  } else if (pending_.exchange(SignalRequest::save_and_stop) != SignalRequest::save_and_stop) {
    stop_asked_ = now;
  } else if (now - stop_asked_ >= kSecondRequest) {
    _exit(static_cast<int>(ExitCode::interrupted));
  }
}

// The first is for later, the second for now: a blocked signal is not ignored.
void SignalWatch::ignore_term() {
  std::signal(SIGTERM, SIG_IGN);
  ignores_term_ = true;
}

SignalRequest SignalWatch::take() {
  // Takes a `save` away and leaves a stop; either way `mine` ends up as what was pending.
  SignalRequest mine = SignalRequest::save;
  pending_.compare_exchange_strong(mine, SignalRequest::none);
  return mine;
}

}  // namespace caravan
