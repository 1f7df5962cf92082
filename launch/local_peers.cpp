#include "launch/local_peers.h"

#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/error.h"

namespace caravan {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Field 22 of /proc/PID/stat; the name in field 2 may hold spaces and brackets. "" without one.
std::string start_time(int pid) {
  const std::string stat = read_file(absl::StrFormat("/proc/%d/stat", pid));
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return "";
  const std::vector<std::string> fields = absl::StrSplit(stat.substr(name_end + 1), ' ');
  constexpr size_t kStartTime = 20;  // of the fields after the name, which begin with a space
  return fields.size() > kStartTime ? fields[kStartTime] : "";
}

// The same for processes that see each other under the same pids.
std::string machine_name() {
  std::array<char, 128> space{};
  if (readlink("/proc/self/ns/pid", space.data(), space.size() - 1) <= 0) return "";
  std::string boot = read_file("/proc/sys/kernel/random/boot_id");
  while (!boot.empty() && boot.back() == '\n') boot.pop_back();
  return boot.empty() ? "" : boot + " " + space.data();
}

}  // namespace

std::vector<RankPlace> gather_places(Communicator& world, const std::string& host) {
  const std::array<std::string, 4> mine = {host, std::to_string(getpid()), machine_name(),
                                           start_time(getpid())};
  std::vector<RankPlace> places;
  for (const std::string& text : gather_strings(world, absl::StrJoin(mine, "\t"))) {
    const std::vector<std::string> parts = absl::StrSplit(text, '\t');
    check(parts.size() == mine.size(), "a rank's place is '%s'", text);
    places.push_back({.host = parts[0],
                      .pid = std::stoi(parts[1]),
                      .machine = parts[2],
                      .start_time = parts[3]});
  }
  return places;
}

std::string describe(const RankPlace& place) {
  return absl::StrFormat("host %s, pid %d", place.host, place.pid);
}

LocalPeers::LocalPeers(const std::vector<RankPlace>& places, int self) {
  const auto poll_for = [this](int descriptor) {
    polled_.push_back({.fd = descriptor, .events = POLLIN, .revents = 0});
  };
  poll_for(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  check(polled_[0].fd >= 0, "cannot make an eventfd");
  const RankPlace& here = places[static_cast<size_t>(self)];
  for (int rank = 0; rank < static_cast<int>(places.size()); ++rank) {
    const RankPlace& place = places[static_cast<size_t>(rank)];
    if (rank == self || here.machine.empty() || place.machine != here.machine) continue;
    // A kernel without pidfds leaves it to the heartbeats.
    const auto descriptor = static_cast<int>(syscall(SYS_pidfd_open, place.pid, 0));
    if (descriptor < 0) continue;
    if (start_time(place.pid) == place.start_time) {
      peers_.push_back(rank);
      poll_for(descriptor);
    } else {
      close(descriptor);
    }
  }
}

LocalPeers::~LocalPeers() {
  for (const pollfd& polled : polled_) close(polled.fd);
}

void LocalPeers::wake() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t awake_already = write(polled_[0].fd, &one, sizeof(one));
}

std::optional<int> LocalPeers::wait(int milliseconds) {
  if (poll(polled_.data(), polled_.size(), milliseconds) <= 0) return {};
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t nobody_woke_us = read(polled_[0].fd, &count, sizeof(count));
  for (size_t i = 0; i < peers_.size(); ++i) {
    if (polled_[i + 1].revents != 0) return peers_[i];
  }
  return {};
}

}  // namespace caravan
