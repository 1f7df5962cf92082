#include "launch/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

#include "runtime/error.h"

namespace caravan {
namespace {

using Json = nlohmann::ordered_json;

// An object, member by member, into a string that has room: a line of every step allocates nothing.
class JsonObject {
 public:
  explicit JsonObject(std::string& text) : text_(text) { text_ = "{"; }
  JsonObject(const JsonObject&) = delete;
  JsonObject& operator=(const JsonObject&) = delete;
  ~JsonObject() { text_ += '}'; }

  void add(std::string_view key, int64_t value) {
    add_key(key);
    add_number(value);
  }
  // The fewest digits that read back as the same; JSON has no word for what is not finite.
  void add(std::string_view key, double value) {
    add_key(key);
    if (!std::isfinite(value)) {
      text_ += "null";
      return;
    }
    const size_t begin = text_.size();
    add_number(value);
    if (text_.find_first_of(".e", begin) == std::string::npos) text_ += ".0";  // no integer
  }
  void add(std::string_view key, const std::optional<double>& value) {
    if (value) add(key, *value);
  }
  // One number of each item.
  template <typename Item, typename Number>
  void add(std::string_view key, std::span<const Item> items, Number Item::*member) {
    add_key(key);
    text_ += '[';
    for (const Item& item : items) {
      if (&item != items.data()) text_ += ',';
      add_number(item.*member);
    }
    text_ += ']';
  }
  void add_true(std::string_view key) {
    add_key(key);
    text_ += "true";
  }

 private:
  void add_key(std::string_view key) {
    if (text_.size() > 1) text_ += ',';
    text_ += '"';
    text_ += key;
    text_ += "\":";
  }
  template <typename Number>
  void add_number(Number value) {
    std::array<char, 32> digits;
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
    text_.append(digits.data(), end);
  }

  std::string& text_;
};

// Whether a killed writer, or a full disk, left a line without its end.
bool ends_inside_line(int descriptor) {
  const off_t size = lseek(descriptor, 0, SEEK_END);
  char last = '\n';
  return size > 0 && pread(descriptor, &last, 1, size - 1) == 1 && last != '\n';
}

}  // namespace

namespace {

void add_routers(JsonObject& line, std::span<const RouterGroup> groups) {
  line.add("moe_first_layer", groups, &RouterGroup::first_layer);
  line.add("moe_load_max_mean", groups, &RouterGroup::load_max_mean);
  line.add("moe_passes", groups, &RouterGroup::passes);
  line.add("moe_dropped", groups, &RouterGroup::dropped);
  line.add("moe_dropped_share", groups, &RouterGroup::dropped_share);
  line.add("moe_dead", groups, &RouterGroup::dead_experts);
}

}  // namespace

bool is_spike(const std::optional<double>& z) { return z && *z >= kSpike; }

void metrics_line(const StepMetrics& m, std::string& text) {
  constexpr double kGiB = 1 << 30;
  JsonObject line(text);
  line.add("step", m.step);
  line.add("time", m.time_seconds);
  line.add("loss", m.loss);
  line.add("grad_norm", m.grad_norm);
  line.add("lr", m.learning_rate);
  line.add("tokens", m.tokens);
  line.add("step_ms", m.step_ms);
  line.add("tok_s", m.tokens_per_second);
  line.add("mfu", m.mfu);
  line.add("mem_gib", static_cast<double>(m.memory_bytes) / kGiB);
  line.add("data_ms", m.data_ms);
  line.add("save_ms", m.save_ms);
  line.add("fwd_ms", m.forward_ms);
  line.add("comm_ms", m.comm_ms);
  if (m.routers && !m.routers->empty()) add_routers(line, m.routers->groups());
  line.add("loss_z", m.loss_z);
  line.add("grad_norm_z", m.grad_norm_z);
  if (is_spike(m.loss_z) || is_spike(m.grad_norm_z)) line.add_true("spike");
  if (m.skipped_steps > 0) line.add("skipped", m.skipped_steps);
}

MetricsFile::MetricsFile(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) {
    throw config_error(absl::StrFormat("%s: %s; make output_dir writable, or give another one",
                                       path, std::strerror(errno)));
  }
  inside_line_ = ends_inside_line(descriptor_);
  line_.reserve(2048);  // of some 300 bytes, with experts 800
}

MetricsFile::~MetricsFile() { close(descriptor_); }

void MetricsFile::step(const StepMetrics& metrics) {
  metrics_line(metrics, line_);
  append_line();
}

void MetricsFile::evaluation(int64_t step, double loss) {
  line_ = Json({{"event", "eval"}, {"step", step}, {"loss", loss}}).dump();
  append_line();
}

void MetricsFile::resume(int64_t step) {
  line_ = Json({{"event", "resume"}, {"step", step}}).dump();
  append_line();
}

void MetricsFile::append_line() {
  if (inside_line_) line_.insert(line_.begin(), '\n');
  line_.push_back('\n');
  ssize_t written;
  do {
    written = write(descriptor_, line_.data(), line_.size());
  } while (written < 0 && errno == EINTR);
  if (written > 0) inside_line_ = written != std::ssize(line_);
  error_.clear();
  if (written == std::ssize(line_)) return;
  error_ = absl::StrFormat("%s: %s; this line is lost", path_,
                           written < 0 ? std::strerror(errno) : "the disk is full");
}

}  // namespace caravan
