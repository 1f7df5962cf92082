// Every call walks over its tensors in rounds that fit the two host buffers. All ranks cut alike,
// as they do from the same sizes; sums add element by element, so cutting changes no bit.
#include "parallel/host_staged_communicator.h"

#include <algorithm>
#include <vector>

#include "runtime/error.h"

namespace caravan {
namespace {

class HostStagedCommunicator final : public Communicator {
 public:
  HostStagedCommunicator(std::unique_ptr<Communicator> inner, Backend& backend, int64_t bytes)
      : inner_(std::move(inner)),
        backend_(backend),
        bytes_(bytes),
        round_bytes_(bytes / inner_->size() / kUnit * kUnit),
        sent_(backend.reserve_host(bytes)),
        received_(backend.reserve_host(bytes)) {
    check(round_bytes_ > 0, "host-staged: %d bytes are too few for %d ranks", bytes, size());
  }

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return make_host_staged_communicator(inner_->split(color, key), backend_, bytes_);
  }
  void all_reduce(void* data, int64_t count, DType dtype) override;
  void all_gather(const void* send, void* recv, int64_t bytes) override;
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) override;
  void all_to_all(const void* send, void* recv, int64_t bytes) override;
  void all_to_all_v(const void* send, std::span<const int64_t> send_bytes, void* recv,
                    std::span<const int64_t> recv_bytes) override;
  float all_reduce_max(float value) override { return inner_->all_reduce_max(value); }
  void broadcast(void* data, int64_t bytes, int root) override;
  void send(const void* data, int64_t bytes, int to) override;
  void recv(void* data, int64_t bytes, int from) override;
  void barrier() override {
    settle();
    inner_->barrier();
  }

 private:
  static constexpr int64_t kUnit = 64;  // rounds end between elements

  // round(offset, length) for parts of at most `most` bytes.
  template <typename Round>
  void for_rounds(int64_t bytes, int64_t most, Round round) {
    for (int64_t at = 0; at < bytes; at += most) round(at, std::min(most, bytes - at));
  }
  void copy(void* to, const void* from, int64_t bytes) {
    backend_.copy_for_communication(to, from, bytes);
  }
  // What was copied is there, and the host buffers are free again.
  void settle() { backend_.synchronize_communication(); }
  void put_blocks(const std::byte* device, int64_t stride, int64_t offset, int64_t length);
  void get_blocks(std::byte* device, int64_t stride, int64_t offset, int64_t length);

  std::unique_ptr<Communicator> inner_;
  Backend& backend_;
  int64_t bytes_;
  int64_t round_bytes_;  // of each rank
  std::unique_ptr<DeviceMemory> sent_, received_;
};

std::byte* bytes_at(void* data) { return static_cast<std::byte*>(data); }
const std::byte* bytes_at(const void* data) { return static_cast<const std::byte*>(data); }

// Bytes [offset, offset + length) of the block of each rank, to the host, packed.
void HostStagedCommunicator::put_blocks(const std::byte* device, int64_t stride, int64_t offset,
                                        int64_t length) {
  for (int peer = 0; peer < size(); ++peer) {
    copy(sent_->data() + peer * length, device + peer * stride + offset, length);
  }
  settle();
}

void HostStagedCommunicator::get_blocks(std::byte* device, int64_t stride, int64_t offset,
                                        int64_t length) {
  for (int peer = 0; peer < size(); ++peer) {
    copy(device + peer * stride + offset, received_->data() + peer * length, length);
  }
}

void HostStagedCommunicator::all_reduce(void* data, int64_t count, DType dtype) {
  for_rounds(count * size_bytes(dtype), round_bytes_ * size(), [&](int64_t offset, int64_t length) {
    std::byte* const part = bytes_at(data) + offset;
    copy(sent_->data(), part, length);
    settle();
    inner_->all_reduce(sent_->data(), length / size_bytes(dtype), dtype);
    copy(part, sent_->data(), length);
  });
}

void HostStagedCommunicator::all_gather(const void* send, void* recv, int64_t bytes) {
  for_rounds(bytes, round_bytes_, [&](int64_t offset, int64_t length) {
    copy(sent_->data(), bytes_at(send) + offset, length);
    settle();
    inner_->all_gather(sent_->data(), received_->data(), length);
    get_blocks(bytes_at(recv), bytes, offset, length);
  });
}

// In place `recv` is a block of `send` whose later parts have not been read yet: each round reads
// and writes the same part of the blocks.
void HostStagedCommunicator::reduce_scatter(const void* send, void* recv, int64_t count,
                                            DType dtype) {
  const int64_t bytes = count * size_bytes(dtype);
  for_rounds(bytes, round_bytes_, [&](int64_t offset, int64_t length) {
    put_blocks(bytes_at(send), bytes, offset, length);
    inner_->reduce_scatter(sent_->data(), received_->data(), length / size_bytes(dtype), dtype);
    copy(bytes_at(recv) + offset, received_->data(), length);
  });
}

void HostStagedCommunicator::all_to_all(const void* send, void* recv, int64_t bytes) {
  for_rounds(bytes, round_bytes_, [&](int64_t offset, int64_t length) {
    put_blocks(bytes_at(send), bytes, offset, length);
    inner_->all_to_all(sent_->data(), received_->data(), length);
    get_blocks(bytes_at(recv), bytes, offset, length);
  });
}

// Blocks differ in size and so do the ranks' longest ones: the ranks agree on the number of rounds.
void HostStagedCommunicator::all_to_all_v(const void* send, std::span<const int64_t> send_bytes,
                                          void* recv, std::span<const int64_t> recv_bytes) {
  const auto rounds_for = [&](std::span<const int64_t> bytes) {
    return (*std::ranges::max_element(bytes) + round_bytes_ - 1) / round_bytes_;
  };
  const int64_t mine = std::max(rounds_for(send_bytes), rounds_for(recv_bytes));
  const auto rounds = static_cast<int64_t>(inner_->all_reduce_max(static_cast<float>(mine)));
  std::vector<int64_t> now_sent(send_bytes.size()), now_received(recv_bytes.size());
  // Copies what this round takes of each block, and notes how much that is.
  const auto each = [&](int64_t round, std::span<const int64_t> all, std::vector<int64_t>& now,
                        auto copy_part) {
    int64_t block = 0, packed = 0;
    for (size_t peer = 0; peer < all.size(); ++peer) {
      const int64_t left = all[peer] - round * round_bytes_;
      now[peer] = std::clamp<int64_t>(left, 0, round_bytes_);
      copy_part(block + round * round_bytes_, packed, now[peer]);
      block += all[peer];
      packed += now[peer];
    }
  };
  for (int64_t round = 0; round < rounds; ++round) {
    each(round, send_bytes, now_sent, [&](int64_t at, int64_t packed, int64_t bytes) {
      copy(sent_->data() + packed, bytes_at(send) + at, bytes);
    });
    settle();
    each(round, recv_bytes, now_received, [](int64_t, int64_t, int64_t) {});
    inner_->all_to_all_v(sent_->data(), now_sent, received_->data(), now_received);
    each(round, recv_bytes, now_received, [&](int64_t at, int64_t packed, int64_t bytes) {
      copy(bytes_at(recv) + at, received_->data() + packed, bytes);
    });
  }
}

void HostStagedCommunicator::broadcast(void* data, int64_t bytes, int root) {
  for_rounds(bytes, round_bytes_ * size(), [&](int64_t offset, int64_t length) {
    std::byte* const part = bytes_at(data) + offset;
    copy(sent_->data(), part, length);
    settle();
    inner_->broadcast(sent_->data(), length, root);
    if (rank() != root) copy(part, sent_->data(), length);
  });
}

void HostStagedCommunicator::send(const void* data, int64_t bytes, int to) {
  for_rounds(bytes, round_bytes_ * size(), [&](int64_t offset, int64_t length) {
    copy(sent_->data(), bytes_at(data) + offset, length);
    settle();
    inner_->send(sent_->data(), length, to);
  });
}

void HostStagedCommunicator::recv(void* data, int64_t bytes, int from) {
  for_rounds(bytes, round_bytes_ * size(), [&](int64_t offset, int64_t length) {
    settle();
    inner_->recv(received_->data(), length, from);
    copy(bytes_at(data) + offset, received_->data(), length);
  });
}

}  // namespace

std::unique_ptr<Communicator> make_host_staged_communicator(std::unique_ptr<Communicator> inner,
                                                            Backend& backend, int64_t bytes) {
  return std::make_unique<HostStagedCommunicator>(std::move(inner), backend, bytes);
}

}  // namespace caravan
