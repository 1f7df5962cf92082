#include "launch/signals.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <vector>

#include "runtime/error.h"

namespace caravan {
namespace {

// Signal handlers can reach nothing but statics.
std::atomic<SignalRequest> pending{SignalRequest::none};
static_assert(std::atomic<SignalRequest>::is_always_lock_free);

extern "C" void on_save_and_stop(int) {
  if (pending.exchange(SignalRequest::save_and_stop) == SignalRequest::save_and_stop) {
    _exit(static_cast<int>(ExitCode::interrupted));
  }
}

extern "C" void on_save(int) {
  SignalRequest none = SignalRequest::none;
  pending.compare_exchange_strong(none, SignalRequest::save);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_flags = SA_RESTART;
  action.sa_handler = on_save_and_stop;
  sigaction(SIGUSR1, &action, nullptr);
  action.sa_handler = on_save;
  sigaction(SIGUSR2, &action, nullptr);
}

SignalRequest take_signal_request(Communicator& world) {
  // Takes a `save` away; a stop stays pending, so that the next USR1 is the second one. Either way
  // `mine` ends up as what was pending.
  SignalRequest mine = SignalRequest::save;
  pending.compare_exchange_strong(mine, SignalRequest::none);
  std::vector<SignalRequest> all(static_cast<size_t>(world.size()));
  world.all_gather(&mine, all.data(), sizeof(mine));
  return *std::ranges::max_element(all);
}

}  // namespace caravan
