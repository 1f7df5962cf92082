#include "tests/runtime/cuda/device_buffers.h"

#include <algorithm>
#include <numeric>

namespace caravan {
namespace {

// A host buffer and its twin on the device.
class Twin {
 public:
  Twin(Backend& backend, const void* host, int64_t bytes)
      : backend_(backend), bytes_(bytes), memory_(backend.reserve(std::max<int64_t>(bytes, 1))) {
    backend.copy_in(memory_->data(), host, bytes);
    backend.synchronize();
  }
  std::byte* data() const { return memory_->data(); }
  void copy_back(void* host) const {
    backend_.synchronize();
    backend_.copy_out(host, memory_->data(), bytes_);
  }

 private:
  Backend& backend_;
  int64_t bytes_;
  std::unique_ptr<DeviceMemory> memory_;
};

// Where `part` lies inside [whole, whole + bytes), in bytes; -1: elsewhere.
int64_t place_in(const void* whole, int64_t bytes, const void* part) {
  const auto* begin = static_cast<const std::byte*>(whole);
  const auto* at = static_cast<const std::byte*>(part);
  return bytes > 0 && at >= begin && at < begin + bytes ? at - begin : -1;
}

class DeviceBuffers final : public Communicator {
 public:
  DeviceBuffers(std::unique_ptr<Communicator> inner, Backend& backend)
      : inner_(std::move(inner)), backend_(backend) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return make_device_buffers(inner_->split(color, key), backend_);
  }
  void all_reduce(void* data, int64_t count, DType dtype) override {
    const Twin twin(backend_, data, count * size_bytes(dtype));
    inner_->all_reduce(twin.data(), count, dtype);
    twin.copy_back(data);
  }
  void all_gather(const void* send, void* recv, int64_t bytes) override {
    const Twin to(backend_, recv, bytes * size());
    const int64_t place = place_in(recv, bytes * size(), send);
    const Twin from(backend_, send, bytes);
    inner_->all_gather(place >= 0 ? to.data() + place : from.data(), to.data(), bytes);
    to.copy_back(recv);
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) override {
    const int64_t bytes = count * size_bytes(dtype);
    const Twin from(backend_, send, bytes * size());
    const int64_t place = place_in(send, bytes * size(), recv);
    const Twin to(backend_, recv, bytes);
    inner_->reduce_scatter(from.data(), place >= 0 ? from.data() + place : to.data(), count, dtype);
    if (place >= 0)
      from.copy_back(const_cast<void*>(send));
    else
      to.copy_back(recv);
  }
  void all_to_all(const void* send, void* recv, int64_t bytes) override {
    const Twin from(backend_, send, bytes * size()), to(backend_, recv, bytes * size());
    inner_->all_to_all(from.data(), to.data(), bytes);
    to.copy_back(recv);
  }
  void all_to_all_v(const void* send, std::span<const int64_t> send_bytes, void* recv,
                    std::span<const int64_t> recv_bytes) override {
    const auto sum = [](std::span<const int64_t> all) {
      return std::accumulate(all.begin(), all.end(), int64_t{0});
    };
    const Twin from(backend_, send, sum(send_bytes)), to(backend_, recv, sum(recv_bytes));
    inner_->all_to_all_v(from.data(), send_bytes, to.data(), recv_bytes);
    to.copy_back(recv);
  }
  float all_reduce_max(float value) override { return inner_->all_reduce_max(value); }
  void broadcast(void* data, int64_t bytes, int root) override {
    const Twin twin(backend_, data, bytes);
    inner_->broadcast(twin.data(), bytes, root);
    twin.copy_back(data);
  }
  void send(const void* data, int64_t bytes, int to) override {
    const Twin twin(backend_, data, bytes);
    inner_->send(twin.data(), bytes, to);
    backend_.synchronize();
  }
  void recv(void* data, int64_t bytes, int from) override {
    const Twin twin(backend_, data, bytes);
    inner_->recv(twin.data(), bytes, from);
    twin.copy_back(data);
  }
  void barrier() override { inner_->barrier(); }

 private:
  std::unique_ptr<Communicator> inner_;
  Backend& backend_;
};

}  // namespace

std::unique_ptr<Communicator> make_device_buffers(std::unique_ptr<Communicator> inner,
                                                  Backend& backend) {
  return std::make_unique<DeviceBuffers>(std::move(inner), backend);
}

}  // namespace caravan
