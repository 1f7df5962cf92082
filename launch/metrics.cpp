#include "launch/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/error.h"

namespace caravan {
namespace {

using Json = nlohmann::ordered_json;

void add_if_known(Json& object, const char* key, const std::optional<double>& value) {
  if (value) object[key] = *value;
}

// Whether a killed writer, or a full disk, left a line without its end.
bool ends_inside_line(int descriptor) {
  const off_t size = lseek(descriptor, 0, SEEK_END);
  char last = '\n';
  return size > 0 && pread(descriptor, &last, 1, size - 1) == 1 && last != '\n';
}

}  // namespace

bool is_spike(const std::optional<double>& z) { return z && *z >= kSpike; }

std::string metrics_line(const StepMetrics& m) {
  constexpr double kGiB = 1 << 30;
  Json line = {{"step", m.step},           {"time", m.time_seconds},      {"loss", m.loss},
               {"grad_norm", m.grad_norm}, {"lr", m.learning_rate},       {"tokens", m.tokens},
               {"step_ms", m.step_ms},     {"tok_s", m.tokens_per_second}};
  add_if_known(line, "mfu", m.mfu);
  line["mem_gib"] = static_cast<double>(m.memory_bytes) / kGiB;
  add_if_known(line, "data_ms", m.data_ms);
  add_if_known(line, "save_ms", m.save_ms);
  add_if_known(line, "fwd_ms", m.forward_ms);
  add_if_known(line, "comm_ms", m.comm_ms);
  add_if_known(line, "loss_z", m.loss_z);
  add_if_known(line, "grad_norm_z", m.grad_norm_z);
  if (is_spike(m.loss_z) || is_spike(m.grad_norm_z)) line["spike"] = true;
  if (m.skipped_steps > 0) line["skipped"] = m.skipped_steps;
  return line.dump();
}

MetricsFile::MetricsFile(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) {
    throw config_error(absl::StrFormat("%s: %s; make output_dir writable, or give another one",
                                       path, std::strerror(errno)));
  }
  inside_line_ = ends_inside_line(descriptor_);
}

MetricsFile::~MetricsFile() { close(descriptor_); }

void MetricsFile::step(const StepMetrics& metrics) { append(metrics_line(metrics)); }

void MetricsFile::evaluation(int64_t step, double loss) {
  append(Json({{"event", "eval"}, {"step", step}, {"loss", loss}}).dump());
}

void MetricsFile::resume(int64_t step) {
  append(Json({{"event", "resume"}, {"step", step}}).dump());
}

void MetricsFile::append(std::string line) {
  if (inside_line_) line.insert(line.begin(), '\n');
  line.push_back('\n');
  ssize_t written;
  do {
    written = write(descriptor_, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written > 0) inside_line_ = written != static_cast<ssize_t>(line.size());
  error_.clear();
  if (written == static_cast<ssize_t>(line.size())) return;
  error_ = absl::StrFormat("%s: %s; this line is lost", path_,
                           written < 0 ? std::strerror(errno) : "the disk is full");
}

}  // namespace caravan
