#include "launch/log.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kWarningSeconds = 60;

std::string memory_text(int64_t used, int64_t limit) {
  constexpr double kGiB = 1 << 30;
  const double used_gib = static_cast<double>(used) / kGiB;
  const int digits = used_gib < 10 ? 2 : 1;
  if (limit <= 0) return absl::StrFormat("%.*f GiB", digits, used_gib);
  return absl::StrFormat("%.*f/%.1f GiB", digits, used_gib, static_cast<double>(limit) / kGiB);
}

// The loss is what people look for: bold; the rest of the line stays quiet.
std::string coloured(const std::string& line) {
  const size_t begin = line.find("loss ");
  const size_t end = line.find(" |", begin);
  if (begin == std::string::npos || end == std::string::npos) return line;
  return line.substr(0, begin) + "\x1b[1;32m" + line.substr(begin, end - begin) + "\x1b[0m" +
         line.substr(end);
}

// The columns of a terminal, 80 when it does not say; 0 when `descriptor` is none.
int terminal_columns(int descriptor) {
  if (isatty(descriptor) != 1) return 0;
  winsize size{};
  const bool known = ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

// mpirun gives its processes a terminal of its own making, also when it writes to a file itself.
// What counts is where mpirun writes; on other machines than its own, nobody watches.
int watched_columns() {
  if (!terminal_moves_cursor()) return 0;
  if (!std::getenv("OMPI_COMM_WORLD_RANK")) return terminal_columns(STDOUT_FILENO);
  const std::string path = absl::StrFormat("/proc/%d/fd/1", getppid());
  const int descriptor = open(path.c_str(), O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) return 0;
  const int columns = terminal_columns(descriptor);
  close(descriptor);
  return columns;
}

}  // namespace

bool terminal_moves_cursor() {
  const char* type = std::getenv("TERM");
  return !type || std::string_view(type) != "dumb";
}

std::string format_count(int64_t count) {
  std::string digits = std::to_string(count);
  const int64_t first = count < 0 ? 1 : 0;
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > first; i -= 3) {
    digits.insert(static_cast<size_t>(i), ",");
  }
  return digits;
}

std::string format_milliseconds(double ms) {
  if (ms < 9.95) return absl::StrFormat("%.1f ms", ms);
  if (ms < 9999.5) return absl::StrFormat("%.0f ms", ms);
  return absl::StrFormat("%.1f s", ms / 1000);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto total = static_cast<int64_t>(std::min(seconds, 1e12) + 0.5);
  const int64_t days = total / 86400, hours = total / 3600 % 24, minutes = total / 60 % 60;
  if (days > 0) return absl::StrFormat("%dd%02dh", days, hours);
  if (hours > 0) return absl::StrFormat("%dh%02dm", hours, minutes);
  if (minutes > 0) return absl::StrFormat("%dm%02ds", minutes, total % 60);
  return absl::StrFormat("%ds", total);
}

std::string format_parameters(int64_t count) {
  const auto value = static_cast<double>(count);
  if (value >= 1e9) return absl::StrFormat("%.2f B", value / 1e9);
  if (value >= 1e6) return absl::StrFormat("%.1f M", value / 1e6);
  return format_count(count);
}

namespace {

// What is wrong is only shown when it is.
std::string router_text(const RouterGroup& all) {
  std::string text =
      absl::StrFormat(" | moe max/mean %.2f passes %.2f", all.load_max_mean, all.passes);
  const double percent = all.dropped_share * 100;
  if (percent > 0)
    text += absl::StrFormat(percent < 0.1 ? " dropped %.1g%%" : " dropped %.1f%%", percent);
  if (all.dead_experts > 0) text += absl::StrFormat(" dead %d", all.dead_experts);
  return text;
}

}  // namespace

std::string step_line(const StepMetrics& m) {
  const double percent = 100.0 * static_cast<double>(m.step) / static_cast<double>(m.max_steps);
  std::string line = absl::StrFormat(
      "step %d/%d %.1f%% | loss %.4f | gnorm %.3f | lr %.2e | %s | %s tok/s", m.step, m.max_steps,
      percent, m.loss, m.grad_norm, m.learning_rate, format_milliseconds(m.step_ms),
      format_count(static_cast<int64_t>(std::llround(m.tokens_per_second))));
  if (m.mfu) line += absl::StrFormat(" | mfu %.1f%%", *m.mfu * 100);
  line += " | mem " + memory_text(m.memory_bytes, m.memory_limit_bytes);
  if (m.routers && !m.routers->empty()) line += router_text(m.routers->all());
  line += " | eta " + format_duration(m.eta_seconds);
  if (m.skipped_steps > 0) line += absl::StrFormat(" | skip %d", m.skipped_steps);
  if (is_spike(m.loss_z)) line += absl::StrFormat(" | loss spike %+.1fz", *m.loss_z);
  if (is_spike(m.grad_norm_z)) line += absl::StrFormat(" | gnorm spike %+.1fz", *m.grad_norm_z);
  return line;
}

ConsoleOptions console_options(int64_t logging_steps) {
  const char* no_color = std::getenv("NO_COLOR");
  const int columns = watched_columns();
  return {.descriptor = STDOUT_FILENO,
          .columns = columns,
          .has_colour = columns > 0 && (!no_color || !*no_color),
          .logging_steps = logging_steps,
          .seconds_now = [] {
            const auto now = std::chrono::steady_clock::now().time_since_epoch();
            return std::chrono::duration<double>(now).count();
          }};
}

Console::Console(ConsoleOptions options) : options_(std::move(options)) {
  check(options_.logging_steps >= 1, "logging_steps is %d", options_.logging_steps);
}

Console::~Console() { end_live_line(); }

void Console::table(const std::vector<std::pair<std::string, std::string>>& rows) {
  size_t left = 9, right = 5;  // "parameter", "value"
  for (const auto& [name, value] : rows) {
    left = std::max(left, name.size());
    right = std::max(right, value.size());
  }
  const int name_width = static_cast<int>(left), value_width = static_cast<int>(right);
  std::string text =
      absl::StrFormat("| %-*s | %-*s |\n", name_width, "parameter", value_width, "value");
  text += "|" + std::string(left + 2, '-') + "|" + std::string(right + 2, '-') + "|\n";
  for (const auto& [name, value] : rows) {
    text += absl::StrFormat("| %-*s | %-*s |\n", name_width, name, value_width, value);
  }
  end_live_line();
  put(text);
}

void Console::step(const StepMetrics& metrics) {
  const bool is_edge = !has_shown_step_ || metrics.step == metrics.max_steps ||
                       is_spike(metrics.loss_z) || is_spike(metrics.grad_norm_z);
  if (options_.columns == 0) {
    if (is_edge || metrics.step % options_.logging_steps == 0) put(step_line(metrics) + "\n");
    has_shown_step_ = true;
    return;
  }
  const double now = options_.seconds_now();
  if (!is_edge && now - last_redraw_ < kRedrawSeconds) return;
  last_redraw_ = now;
  has_shown_step_ = true;
  // A line that wraps could not be redrawn.
  const std::string line = step_line(metrics).substr(0, static_cast<size_t>(options_.columns) - 1);
  put("\r" + (options_.has_colour ? coloured(line) : line) + "\x1b[K");
  has_live_line_ = true;
}

void Console::line(const std::string& text) {
  end_live_line();
  put(text + "\n");
}

bool Console::may_warn(std::string_view kind) const {
  const auto last = last_warning_.find(kind);
  return last == last_warning_.end() || options_.seconds_now() - last->second >= kWarningSeconds;
}

void Console::warn(const std::string& kind, const std::string& text) {
  if (!may_warn(kind)) return;
  last_warning_[kind] = options_.seconds_now();
  line((options_.has_colour ? "\x1b[33mwarning:\x1b[0m " : "warning: ") + text);
}

void Console::end_live_line() {
  if (!has_live_line_) return;
  put("\n");
  has_live_line_ = false;
}

void Console::put(const std::string& text) const {
  // Output that nobody reads any more (a closed pipe) must not end a training run.
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = write(options_.descriptor, text.data() + done, text.size() - done);
    if (written <= 0) return;
    done += static_cast<size_t>(written);
  }
}

}  // namespace caravan
