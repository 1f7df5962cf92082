#include "tests/e2e/steady_state/origin.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>

#include <string_view>

#include "absl/strings/str_format.h"
#include "runtime/error.h"

// Where the functions lie that take the place of malloc and its kind (memory_use.cpp).
extern "C" const char __start_stand_ins[], __stop_stand_ins[];

namespace caravan {
namespace {

constexpr int kMaxFrames = 64;

std::string_view file_name(const char* path) {
  const std::string_view text(path);
  return text.substr(text.rfind('/') + 1);
}

bool is_stand_in(const void* address) {
  return address >= __start_stand_ins && address < __stop_stand_ins;
}

// Those that ask on behalf of their callers.
bool asks_for_others(const char* library) {
  for (const char* name : {"libc.so", "libstdc++.so", "libgcc_s.so", "ld-linux", "libabsl_"}) {
    if (file_name(library).starts_with(name)) return true;
  }
  return false;
}

}  // namespace

OriginTable::Entry OriginTable::entry_of(Request request, const void* from) {
  Entry entry{.request = request};
  void* frames[kMaxFrames];
  const int count = backtrace(frames, kMaxFrames);
  size_t depth = 0;
  int first = 0;  // this function and others of the counter are nearer
  while (first < count && frames[first] != from) ++first;
  for (int i = first; i < count && depth < entry.place.size(); ++i) {
    dl_find_object object;
    if (is_stand_in(frames[i]) || _dl_find_object(frames[i], &object) != 0) continue;
    const link_map& map = *object.dlfo_link_map;
    if (entry.library == nullptr && !asks_for_others(map.l_name)) entry.library = map.l_name;
    if (entry.library == nullptr || *entry.library != '\0') continue;
    if (*map.l_name == '\0') {
      entry.place[depth++] = reinterpret_cast<uintptr_t>(frames[i]) - map.l_addr;
    }
  }
  return entry;
}

void OriginTable::add(Request request, const void* from) {
  const Entry wanted = entry_of(request, from);
  while (is_used_.test_and_set(std::memory_order_acquire)) continue;
  size_t at = 0;
  while (at < size_ &&
         !(entries_[at].request == wanted.request && entries_[at].library == wanted.library &&
           entries_[at].place == wanted.place)) {
    ++at;
  }
  // A full table counts what is too much under its last entry: nothing is lost.
  if (at == entries_.size()) --at;
  if (at == size_) entries_[size_++] = wanted;
  ++entries_[at].count;
  is_used_.clear(std::memory_order_release);
}

std::vector<Asked> OriginTable::read() const {
  std::vector<Asked> all;
  for (size_t i = 0; i < size_; ++i) {
    const Entry& entry = entries_[i];
    Asked asked{.request = entry.request, .by = "unknown", .count = entry.count, .place = ""};
    if (entry.library != nullptr) asked.by = file_name(entry.library);
    if (asked.by.empty()) asked.by = "own";
    for (const uintptr_t address : entry.place) {
      if (address != 0) asked.place += absl::StrFormat(" 0x%x", address);
    }
    all.push_back(asked);
  }
  return all;
}

}  // namespace caravan
