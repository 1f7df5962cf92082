// What people see of a run, on rank 0: the table at the start, a line per step, warnings.
// On a terminal the step line is one live line, in colour unless NO_COLOR is set; elsewhere, and
// where TERM is dumb, whole lines: the first step, then every logging_steps, and the last; spikes
// always. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launch/metrics.h"

namespace caravan {

// "step 1200/10000 12.0% | loss 2.4131 | gnorm 0.872 | lr 2.94e-04 | 412 ms | 159,012 tok/s |
// mfu 41.2% | mem 61.3/80.0 GiB | eta 1h02m", without colour or line break. With experts, before
// eta: "moe max/mean 1.31 passes 1.00 dropped 0.4% dead 3", the last two only when they are not 0:
// of the worst layer, the mean, of all picks, and of all layers.
std::string step_line(const StepMetrics& metrics);

std::string format_count(int64_t count);       // "159,012"
std::string format_milliseconds(double ms);    // "412 ms", "4.1 ms", "12.3 s"
std::string format_duration(double seconds);   // "12s", "3m05s", "1h02m", "2d03h"
std::string format_parameters(int64_t count);  // "10.2 M", "8.03 B"

struct ConsoleOptions {
  int descriptor = 1;
  int columns = 0;  // of the terminal that somebody watches; 0: there is none
  bool has_colour = false;
  int64_t logging_steps = 10;
  std::function<double()> seconds_now;  // any origin, never backwards
};

// False for TERM=dumb: such a terminal shows control sequences as they are.
bool terminal_moves_cursor();

// Looks at standard output, its width, TERM and NO_COLOR.
ConsoleOptions console_options(int64_t logging_steps);

class Console {
 public:
  explicit Console(ConsoleOptions options);
  ~Console();  // leaves the live line standing
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // The table at the start: parameter and value.
  void table(const std::vector<std::pair<std::string, std::string>>& rows);

  void step(const StepMetrics& metrics);

  // A line that stays, such as the result of an evaluation.
  void line(const std::string& text);

  // Whether a warning of this kind would be shown now: where its text is not worth making.
  bool may_warn(std::string_view kind) const;
  // A line that stays. The same kind of warning is shown once a minute at most.
  void warn(const std::string& kind, const std::string& text);

 private:
  void end_live_line();
  void put(const std::string& text) const;

  ConsoleOptions options_;
  bool has_live_line_ = false;
  bool has_shown_step_ = false;
  double last_redraw_ = 0;
  std::map<std::string, double, std::less<>> last_warning_;  // when, by kind
};

}  // namespace caravan
