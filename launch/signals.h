// What a scheduler or a person asks of a running job: USR1 save a checkpoint and stop, USR2 save
// and go on. A second USR1, two seconds later or more, ends the process at once, which harms no
// checkpoint; sooner it is the same request, delivered twice, as when a signal goes to a launcher
// that passes it on and to its whole process group. (Slurm sends them with --signal.)
//
// TERM ends the process with 143, as ever, but by the thread that waits for it: when a rank has
// died, mpirun sends it to the others, and a watchdog may still want to say who it was.
//
// There is no signal handler: a library's generated code may keep live data below the stack
// pointer, which a handler's frame would overwrite. The signals are blocked and a thread waits for
// them.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

namespace caravan {

enum class SignalRequest : uint8_t { none = 0, save = 1, save_and_stop = 2 };

class SignalWatch {
 public:
  // Blocks the signals for this thread and all that it starts from now on: make it first.
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  // The strongest request that this process has got since the last call. A request to stop stays.
  SignalRequest take();

  // From now on the process lives so much longer after a TERM.
  void set_last_words(std::chrono::milliseconds time) { last_words_ = time; }
  // From now on a TERM does nothing, also when this object is gone: the ranks leave one by one, and
  // srun --kill-on-bad-exit terminates those that are not the first, whose code would then be that
  // of a crash.
  void ignore_term();
  bool has_term() const { return has_term_; }  // any thread

 private:
  void watch(const std::stop_token& stop);
  void receive(int signal);

  std::atomic<SignalRequest> pending_{SignalRequest::none};
  std::atomic<std::chrono::milliseconds> last_words_{std::chrono::milliseconds(0)};
  std::atomic<bool> has_term_{false};
  std::atomic<bool> ignores_term_{false};
  std::chrono::steady_clock::time_point stop_asked_;  // when the first USR1 came
  std::jthread thread_;                               // last: it uses the above
};

}  // namespace caravan
