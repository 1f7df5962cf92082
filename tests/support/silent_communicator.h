// A communicator that says what rank it is and moves nothing: tests override what they look at.
#pragma once

#include "runtime/communicator.h"

namespace caravan {

class SilentCommunicator : public Communicator {
 public:
  explicit SilentCommunicator(int size) : size_(size) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }
  std::unique_ptr<Communicator> split(int, int) override { return nullptr; }
  void all_reduce(void*, int64_t, DType) override {}
  void all_gather(const void*, void*, int64_t) override {}
  void reduce_scatter(const void*, void*, int64_t, DType) override {}
  void all_to_all(const void*, void*, int64_t) override {}
  void all_to_all_v(const void*, std::span<const int64_t>, void*,
                    std::span<const int64_t>) override {}
  float all_reduce_max(float value) override { return value; }
  void broadcast(void*, int64_t, int) override {}
  void send(const void*, int64_t, int) override {}
  void recv(void*, int64_t, int) override {}
  void barrier() override {}

 private:
  int size_;
};

}  // namespace caravan
