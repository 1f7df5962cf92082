#include "runtime/progress.h"

#include "runtime/error.h"

namespace caravan {
namespace {

class WatchedCommunicator final : public Communicator {
 public:
  WatchedCommunicator(std::unique_ptr<Communicator> inner, Progress& progress)
      : inner_(std::move(inner)), progress_(progress) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    const WaitGuard waits = guard();
    return inner_->split(color, key);
  }
  void all_reduce(void* data, int64_t count, DType dtype) override {
    const WaitGuard waits = guard();
    inner_->all_reduce(data, count, dtype);
  }
  void all_gather(const void* send, void* recv, int64_t bytes) override {
    const WaitGuard waits = guard();
    inner_->all_gather(send, recv, bytes);
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) override {
    const WaitGuard waits = guard();
    inner_->reduce_scatter(send, recv, count, dtype);
  }
  void all_to_all(const void* send, void* recv, int64_t bytes) override {
    const WaitGuard waits = guard();
    inner_->all_to_all(send, recv, bytes);
  }
  void all_to_all_v(const void* send, std::span<const int64_t> send_bytes, void* recv,
                    std::span<const int64_t> recv_bytes) override {
    const WaitGuard waits = guard();
    inner_->all_to_all_v(send, send_bytes, recv, recv_bytes);
  }
  float all_reduce_max(float value) override {
    const WaitGuard waits = guard();
    return inner_->all_reduce_max(value);
  }
  void broadcast(void* data, int64_t bytes, int root) override {
    const WaitGuard waits = guard();
    inner_->broadcast(data, bytes, root);
  }
  void send(const void* data, int64_t bytes, int to) override {
    const WaitGuard waits = guard();
    inner_->send(data, bytes, to);
  }
  void recv(void* data, int64_t bytes, int from) override {
    const WaitGuard waits = guard();
    inner_->recv(data, bytes, from);
  }
  void barrier() override {
    const WaitGuard waits = guard();
    inner_->barrier();
  }

 private:
  WaitGuard guard() { return {progress_, kWaitsForControlPlane}; }

  std::unique_ptr<Communicator> inner_;
  Progress& progress_;
};

}  // namespace

std::string_view name(Phase phase) {
  switch (phase) {
    case Phase::planning:
      return "planning";
    case Phase::starting:
      return "starting";
    case Phase::loading:
      return "loading";
    case Phase::waiting_for_data:
      return "waiting for data";
    case Phase::computing:
      return "computing";
    case Phase::evaluating:
      return "evaluating";
    case Phase::saving:
      return "saving";
    case Phase::agreeing:
      return "agreeing";
    case Phase::done:
      return "done";
  }
  throw internal_error("unknown phase");
}

Position Progress::read() const {
  return {.step = step_.load(std::memory_order_relaxed),
          .moves = moves_.load(std::memory_order_relaxed),
          .program = program_.load(std::memory_order_relaxed),
          .op = op_.load(std::memory_order_relaxed),
          .waits_for = waits_for_.load(std::memory_order_relaxed),
          .phase = phase_.load(std::memory_order_relaxed)};
}

std::unique_ptr<Communicator> make_watched_communicator(std::unique_ptr<Communicator> communicator,
                                                        Progress& progress) {
  return std::make_unique<WatchedCommunicator>(std::move(communicator), progress);
}

}  // namespace caravan
