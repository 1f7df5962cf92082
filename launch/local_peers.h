// The other ranks of this machine, as processes: notices at once when one has died, which no
// message could tell. Ranks of other machines, or in another pid namespace, it does not see.
#pragma once

#include <poll.h>

#include <optional>
#include <string>
#include <vector>

#include "runtime/communicator.h"

namespace caravan {

// Where a rank runs; what all ranks know of all.
struct RankPlace {
  std::string host = {};
  int pid = 0;
  std::string machine = {};     // differs when pids mean other processes there
  std::string start_time = {};  // of the process, as the kernel counts
};
// Collective over `world`. By rank.
std::vector<RankPlace> gather_places(Communicator& world, const std::string& host);
std::string describe(const RankPlace& place);  // "host n1, pid 123"

// One thread.
class LocalPeers {
 public:
  LocalPeers(const std::vector<RankPlace>& places, int self);
  ~LocalPeers();
  LocalPeers(const LocalPeers&) = delete;
  LocalPeers& operator=(const LocalPeers&) = delete;

  // A rank of this machine that has died, the lowest one. Comes back after `milliseconds`, at once
  // when somebody dies, or when wake() is called.
  std::optional<int> wait(int milliseconds);
  void wake() const;  // any thread

  int count() const { return static_cast<int>(peers_.size()); }

 private:
  std::vector<int> peers_;      // their ranks
  std::vector<pollfd> polled_;  // what wake() writes to, then a pidfd of each peer
};

}  // namespace caravan
