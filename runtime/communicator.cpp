// The group of one, and the control-plane helpers that need nothing but the interface.
#include "runtime/communicator.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "runtime/error.h"

namespace caravan {
namespace {

class SelfCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Communicator> split(int, int) override { return make_self_communicator(); }

  void all_reduce(void*, int64_t, DType) override {}
  void all_gather(const void* send, void* recv, int64_t bytes) override { copy(send, recv, bytes); }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) override {
    copy(send, recv, count * size_bytes(dtype));
  }
  void all_to_all(const void* send, void* recv, int64_t bytes) override { copy(send, recv, bytes); }
  void all_to_all_v(const void* send, std::span<const int64_t> send_bytes, void* recv,
                    std::span<const int64_t> recv_bytes) override {
    check(send_bytes[0] == recv_bytes[0], "all_to_all_v: %d bytes sent, %d received", send_bytes[0],
          recv_bytes[0]);
    copy(send, recv, send_bytes[0]);
  }
  float all_reduce_max(float value) override { return value; }
  void broadcast(void*, int64_t, int root) override {
    check(root == 0, "broadcast from rank %d in a group of one", root);
  }
  void send(const void*, int64_t, int to) override {
    check(false, "send to rank %d in a group of one: there is no peer", to);
  }
  void recv(void*, int64_t, int from) override {
    check(false, "recv from rank %d in a group of one: there is no peer", from);
  }
  void barrier() override {}

 private:
  static void copy(const void* from, void* to, int64_t bytes) {
    if (from != to && bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() {
  return std::make_unique<SelfCommunicator>();
}

std::vector<std::string> gather_strings(Communicator& communicator, const std::string& mine) {
  const auto num_ranks = static_cast<size_t>(communicator.size());
  const int64_t length = std::ssize(mine);
  std::vector<int64_t> lengths(num_ranks);
  communicator.all_gather(&length, lengths.data(), sizeof(length));

  // all_gather moves equal parts: every string travels padded to the longest one.
  const auto longest = static_cast<size_t>(*std::max_element(lengths.begin(), lengths.end()));
  std::string padded = mine;
  padded.resize(longest, '\0');
  std::string all(longest * num_ranks, '\0');
  communicator.all_gather(padded.data(), all.data(), static_cast<int64_t>(longest));

  std::vector<std::string> strings;
  for (size_t i = 0; i < num_ranks; ++i) {
    strings.push_back(all.substr(i * longest, static_cast<size_t>(lengths[i])));
  }
  return strings;
}

double all_reduce_sum(Communicator& communicator, double value) {
  std::vector<double> values(static_cast<size_t>(communicator.size()));
  communicator.all_gather(&value, values.data(), sizeof(value));
  double sum = values.front();
  for (size_t i = 1; i < values.size(); ++i) sum += values[i];
  return sum;
}

}  // namespace caravan
