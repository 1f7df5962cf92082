#include "tests/support/memory_heartbeat.h"

namespace caravan {

class MemoryHeartbeat final : public Heartbeat {
 public:
  MemoryHeartbeat(HeartbeatSwitchboard& board, int rank) : board_(board), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(board_.mail_.size()); }
  bool flush() override { return true; }

  bool send(const Beat& beat, int to) override {
    const std::lock_guard lock(board_.mutex_);
    board_.mail_[static_cast<size_t>(to)].push_back({rank_, beat});
    return true;
  }

  std::optional<Received> receive() override {
    const std::lock_guard lock(board_.mutex_);
    auto& mail = board_.mail_[static_cast<size_t>(rank_)];
    if (mail.empty()) return {};
    const Received first = mail.front();
    mail.pop_front();
    return first;
  }

 private:
  HeartbeatSwitchboard& board_;
  int rank_;
};

std::unique_ptr<Heartbeat> HeartbeatSwitchboard::connect(int rank) {
  return std::make_unique<MemoryHeartbeat>(*this, rank);
}

}  // namespace caravan
