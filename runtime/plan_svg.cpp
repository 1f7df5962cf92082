#include "runtime/plan_svg.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "runtime/error.h"
#include "runtime/passes/plan_memory.h"

namespace caravan {
namespace {

// The page, in pixels. The plot has its origin at the bottom left.
constexpr double kWidth = 1480, kHeight = 900;
constexpr double kPlotLeft = 330, kPlotRight = 1440, kPlotTop = 150, kPlotBottom = 780;
constexpr double kComputeTop = 98, kCommunicationTop = 116, kStripHeight = 14;
constexpr double kColumnLeft = 60, kColumnRight = 210;
constexpr double kLegendTop = 834;
constexpr double kLabelSize = 10.5;
constexpr double kCharacterWidth = 0.55;  // of the font size, on average

// Light enough for black labels, apart for all kinds of colour vision (after Paul Tol's schemes).
constexpr std::array<const char*, kNumMemoryCategories> kColors = {"#77aadd", "#ee8866", "#ffaabb",
                                                                   "#66c2a4", "#eedd88", "#d0d0d0"};

enum class StepPhase : uint8_t { forward, backward, update };
constexpr std::array kPhases = {StepPhase::forward, StepPhase::backward, StepPhase::update};
constexpr std::array<const char*, 3> kPhaseNames = {"forward", "backward", "update"};
constexpr std::array<const char*, 3> kPhaseColors = {"#3d5a80", "#98c1d9", "#b8b8b8"};

// By step. Backward begins with the first gradient, the update with the first op of that family;
// sums of gradients run in between, as soon as they can.
std::vector<StepPhase> phases_of(const Program& program) {
  std::vector<StepPhase> phases;
  StepPhase phase = StepPhase::forward;
  for (const Step& step : program.steps) {
    const Node& node = program.graph.nodes[index(step.node)];
    const bool makes_gradient = std::ranges::any_of(node.outputs, [&](ValueId id) {
      return program.graph.value(id).kind == ValueKind::gradient;
    });
    const bool accumulates = std::holds_alternative<Accumulate>(node.op);
    if (makes_gradient) phase = std::max(phase, StepPhase::backward);
    if (family(node.op) == "update" && !accumulates) phase = StepPhase::update;
    phases.push_back(accumulates ? StepPhase::update : phase);
  }
  return phases;
}

std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c == '&')
      safe += "&amp;";
    else if (c == '<')
      safe += "&lt;";
    else if (c == '>')
      safe += "&gt;";
    else
      safe += c;
  }
  return safe;
}

// 1, 2 or 5 times a power of ten of `unit`, so that about `num_ticks` fit into `total`.
int64_t tick_distance(int64_t total, int num_ticks, int64_t unit) {
  const double wanted = static_cast<double>(total) / static_cast<double>(unit) / num_ticks;
  const double power = std::pow(10.0, std::floor(std::log10(std::max(wanted, 1.0))));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= wanted) return static_cast<int64_t>(factor * power) * unit;
  }
  return static_cast<int64_t>(10 * power) * unit;
}

// The unit in which format_bytes shows the largest tick.
int64_t byte_unit(int64_t total) {
  int64_t unit = 1;
  while (total / unit >= 1024) unit *= 1024;
  return unit;
}

// "250 MiB": ticks are round numbers.
std::string tick_label(int64_t bytes) {
  std::string label = bytes == 0 ? "0" : format_bytes(bytes);
  for (const std::string zeros : {".00 ", ".0 "}) {
    const size_t at = label.find(zeros);
    if (at != std::string::npos) label.replace(at, zeros.size(), " ");
  }
  return label;
}

struct Rectangle {
  double x, y, width, height;
};

class Picture {
 public:
  Picture(const Program& program, const PersistentLayout& layout, const std::string& title)
      : program_(program),
        layout_(layout),
        live_(live_bytes(program.plan, program.steps.size())),
        phases_(phases_of(program)),
        num_steps_(std::max<double>(1, static_cast<double>(program.steps.size()))),
        top_bytes_(std::max<double>(1, static_cast<double>(program.plan.transient_bytes))) {
    peak_step_ = static_cast<int>(std::ranges::max_element(live_) - live_.begin());
    begin();
    add_title(title);
    add_axes();
    add_blocks();
    add_live_line();
    add_labels();
    add_strip();
    add_persistent();
    add_legend();
    svg_ += "</svg>\n";
  }

  std::string take() { return std::move(svg_); }

 private:
  struct TextStyle {
    double size = 12;
    const char* anchor = "start";
    const char* extra = "";
  };

  template <typename... Args>
  void add(const absl::FormatSpec<Args...>& format, const Args&... args) {
    absl::StrAppendFormat(&svg_, format, args...);
  }

  void text(double x, double y, std::string_view content, const TextStyle& style) {
    add("<text x=\"%.4g\" y=\"%.4g\" font-size=\"%g\" text-anchor=\"%s\" %s>%s</text>\n", x, y,
        style.size, style.anchor, style.extra, escaped(content));
  }

  void line(double x1, double y1, double x2, double y2, const char* style) {
    add("<line x1=\"%.5g\" y1=\"%.5g\" x2=\"%.5g\" y2=\"%.5g\" %s/>\n", x1, y1, x2, y2, style);
  }

  void rectangle(const Rectangle& r, const std::string& tooltip, const char* style = "") {
    add("<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" %s><title>%s</title></rect>\n",
        r.x, r.y, r.width, r.height, style, escaped(tooltip));
  }

  double x_of(double step) const {
    return kPlotLeft + (kPlotRight - kPlotLeft) * step / num_steps_;
  }
  double y_of(double bytes) const {
    return kPlotBottom - (kPlotBottom - kPlotTop) * bytes / top_bytes_;
  }

  void begin() {
    add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\""
        " font-family=\"Helvetica, Arial, 'Liberation Sans', sans-serif\" fill=\"#222\">\n",
        kWidth, kHeight, kWidth, kHeight);
    add("<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n");
  }

  void add_title(const std::string& title) {
    text(kColumnLeft, 36, title, {.size = 20, .extra = "font-weight=\"bold\""});
    const MemoryPlan& plan = program_.plan;
    const double ratio = top_bytes_ / std::max(1.0, static_cast<double>(plan.max_live_bytes));
    text(kColumnLeft, 60,
         absl::StrFormat("program '%s': %d steps, transient region %s, at most %s live (plan / max "
                         "live %.4f)",
                         program_.name, program_.steps.size(), format_bytes(plan.transient_bytes),
                         format_bytes(plan.max_live_bytes), ratio),
         {.size = 14, .extra = "fill=\"#555\""});
  }

  void add_axes() {
    constexpr const char* kGrid = "stroke=\"#e4e4e4\"";
    const int64_t total = program_.plan.transient_bytes;
    const int64_t distance = tick_distance(total, 6, byte_unit(total));
    for (int64_t at = 0; at <= total; at += distance) {
      const double y = y_of(static_cast<double>(at));
      line(kPlotLeft - 5, y, kPlotRight, y, kGrid);
      text(kPlotLeft - 9, y + 4, tick_label(at), {.anchor = "end"});
    }
    const auto steps = static_cast<int64_t>(program_.steps.size());
    const int64_t step_distance = tick_distance(steps, 12, 1);
    for (int64_t at = 0; at <= steps; at += step_distance) {
      const double x = x_of(static_cast<double>(at));
      line(x, kPlotBottom, x, kPlotBottom + 5, "stroke=\"#888\"");
      text(x, kPlotBottom + 19, absl::StrFormat("%d", at), {.anchor = "middle"});
    }
    text((kPlotLeft + kPlotRight) / 2, kPlotBottom + 36, "step of the schedule",
         {.size = 13, .anchor = "middle"});
    add("<text transform=\"translate(246 %g) rotate(-90)\" font-size=\"13\" text-anchor=\"middle\">"
        "offset in the transient region</text>\n",
        (kPlotTop + kPlotBottom) / 2);
  }

  Rectangle place_of(const Block& block) const {
    const double x = x_of(block.first_step), y = y_of(static_cast<double>(block.offset));
    const double top = y_of(static_cast<double>(block.offset + block.bytes));
    return {x, top, x_of(block.last_step + 1) - x, y - top};
  }

  void add_blocks() {
    for (size_t c = 0; c < kNumMemoryCategories; ++c) {
      add("<g fill=\"%s\" stroke=\"white\" stroke-width=\"%.2g\">\n", kColors[c], border_width());
      for (const Block& block : program_.plan.blocks) {
        if (block.category != static_cast<MemoryCategory>(c)) continue;
        rectangle(place_of(block),
                  absl::StrFormat("%s\n%s, %s at offset %d, steps %d to %d", block.name,
                                  name(block.category), format_bytes(block.bytes), block.offset,
                                  block.first_step, block.last_step));
      }
      add("</g>\n");
    }
  }

  // Borders separate blocks; among thousands they would drown the colours.
  double border_width() const {
    return std::min(0.5, 300.0 / static_cast<double>(program_.plan.blocks.size() + 1));
  }

  void add_labels() {
    for (size_t c = 0; c < kNumMemoryCategories; ++c) {
      add("<g pointer-events=\"none\" font-size=\"%g\" text-anchor=\"middle\" stroke=\"%s\" "
          "stroke-width=\"4\" paint-order=\"stroke\">\n",
          kLabelSize, kColors[c]);
      for (const Block& block : program_.plan.blocks) {
        if (block.category == static_cast<MemoryCategory>(c)) add_label(block);
      }
      add("</g>\n");
    }
  }

  // From the longest to the shortest: "layers.3.mlp.up_proj matmul f32[8,4], 128 B" ... "matmul".
  static std::vector<std::string> labels_of(const Block& block) {
    const std::string with_bytes = absl::StrFormat("%s, %s", block.name, format_bytes(block.bytes));
    if (!block.name.ends_with(']')) return {with_bytes, block.name};  // a bucket, a workspace
    const std::string without_type = block.name.substr(0, block.name.rfind(' '));
    const std::string op = without_type.substr(without_type.rfind(' ') + 1);
    const size_t last_scope = without_type.rfind('.', without_type.size() - op.size()) + 1;
    std::vector<std::string> labels = {with_bytes, block.name, without_type};
    const bool has_name = std::isalpha(static_cast<unsigned char>(without_type[last_scope])) != 0;
    if (has_name) labels.push_back(without_type.substr(last_scope));  // not the number of a layer
    labels.push_back(op);
    return labels;
  }

  // The longest text that fits into the rectangle, upright where it is narrow and tall.
  void add_label(const Block& block) {
    const Rectangle r = place_of(block);
    const std::vector<std::string> candidates = labels_of(block);
    const double along = std::max(r.width, r.height), across = std::min(r.width, r.height);
    if (across < kLabelSize + 2) return;
    for (const std::string& candidate : candidates) {
      const double length = static_cast<double>(candidate.size()) * kLabelSize * kCharacterWidth;
      if (length > along - 6) continue;
      const double x = r.x + r.width / 2, y = r.y + r.height / 2;
      add("<text transform=\"translate(%.1f %.1f)%s\" dy=\"3.5\">%s</text>\n", x, y,
          r.width >= r.height || length <= r.width - 6 ? "" : " rotate(-90)", escaped(candidate));
      return;
    }
  }

  void add_live_line() {
    std::string points;
    for (size_t step = 0; step < live_.size(); ++step) {
      const double y = y_of(static_cast<double>(live_[step]));
      absl::StrAppendFormat(&points, "%.1f,%.1f %.1f,%.1f ", x_of(static_cast<double>(step)), y,
                            x_of(static_cast<double>(step + 1)), y);
    }
    for (const char* stroke : {"stroke=\"white\" stroke-width=\"4\" stroke-opacity=\"0.7\"",
                               "stroke=\"#111\" stroke-width=\"1.6\""}) {
      add("<polyline fill=\"none\" pointer-events=\"none\" %s points=\"%s\"/>\n", stroke, points);
    }
    line(kPlotLeft, kPlotTop, kPlotRight, kPlotTop,
         "stroke=\"#c1121f\" stroke-width=\"1.5\" stroke-dasharray=\"7 4\"");
  }

  // Two rows above the plot: what the compute stream does, and the communication beside it.
  void add_strip() {
    text(kPlotLeft - 9, kComputeTop + 11, "compute", {.anchor = "end"});
    text(kPlotLeft - 9, kCommunicationTop + 11, "communication", {.anchor = "end"});
    std::array<std::vector<int>, kPhases.size()> steps_of;
    add("<g shape-rendering=\"crispEdges\">\n");
    for (size_t i = 0; i < program_.steps.size(); ++i) add_strip_step(i, steps_of);
    add("</g>\n");
    for (const StepPhase phase : kPhases) {
      const auto& steps = steps_of[static_cast<size_t>(phase)];
      if (steps.empty()) continue;
      // Named in place only where it stands alone; the legend has its colour in any case.
      const int span = steps.back() - steps.front() + 1;
      const double width = x_of(span) - x_of(0);
      if (static_cast<double>(steps.size()) < 0.6 * span || width < 60) continue;
      text((x_of(steps.front()) + x_of(steps.back() + 1)) / 2, kComputeTop - 6,
           kPhaseNames[static_cast<size_t>(phase)], {.anchor = "middle"});
    }
  }

  void add_strip_step(size_t i, std::array<std::vector<int>, kPhases.size()>& steps_of) {
    const Node& node = program_.graph.nodes[index(program_.steps[i].node)];
    const bool communicates = node.stream == Stream::communication;
    const auto phase = static_cast<size_t>(phases_[i]);
    const double x = x_of(static_cast<double>(i));
    const double width = x_of(static_cast<double>(last_step_of(i) + 1)) - x;
    const char* color = communicates ? kColors[static_cast<size_t>(MemoryCategory::communication)]
                                     : kPhaseColors[phase];
    const std::string border =
        absl::StrFormat(" stroke=\"#8a7a1e\" stroke-width=\"%.2g\"", border_width());
    if (!communicates) steps_of[phase].push_back(static_cast<int>(i));
    rectangle(
        {x, communicates ? kCommunicationTop : kComputeTop, std::max(width, 1.0), kStripHeight},
        absl::StrFormat("step %d: %s", i, label(node)),
        absl::StrFormat("fill=\"%s\"%s", color, communicates ? border : "").c_str());
  }

  // Until which step the step may still be running.
  size_t last_step_of(size_t i) const {
    const Node& node = program_.graph.nodes[index(program_.steps[i].node)];
    if (node.stream == Stream::compute) return i;
    for (size_t j = i + 1; j < program_.steps.size(); ++j) {
      if (program_.steps[j].wait_for >= static_cast<int>(i)) return j - 1;
    }
    return program_.steps.size() - 1;
  }

  void add_persistent() {
    const double middle = (kColumnLeft + kColumnRight) / 2;
    text(middle, kComputeTop + 11, "persistent region", {.size = 13, .anchor = "middle"});
    text(middle, kCommunicationTop + 13,
         absl::StrFormat("%s, on its own scale", format_bytes(layout_.bytes)),
         {.anchor = "middle", .extra = "fill=\"#555\""});
    const double scale =
        (kPlotBottom - kPlotTop) / static_cast<double>(std::max<int64_t>(layout_.bytes, 1));
    for (size_t first = 0; first < layout_.entries.size();) {
      const MemoryCategory category = layout_.entries[first].category;
      size_t end = first;
      while (end < layout_.entries.size() && layout_.entries[end].category == category) ++end;
      const int64_t from = layout_.entries[first].offset;
      const int64_t to =
          end == layout_.entries.size() ? layout_.bytes : layout_.entries[end].offset;
      const Rectangle r{kColumnLeft, kPlotBottom - static_cast<double>(to) * scale,
                        kColumnRight - kColumnLeft, static_cast<double>(to - from) * scale};
      const std::string label = absl::StrFormat("%s, %s", name(category), format_bytes(to - from));
      rectangle(r,
                absl::StrFormat("%s\n%d tensors from %s", label, end - first,
                                layout_.entries[first].name),
                absl::StrFormat("fill=\"%s\" stroke=\"white\" stroke-width=\"0.5\"",
                                kColors[static_cast<size_t>(category)])
                    .c_str());
      if (r.height > 14)
        text(middle, r.y + r.height / 2 + 4, label, {.size = 11, .anchor = "middle"});
      first = end;
    }
  }

  void add_legend() {
    std::array<int64_t, kNumMemoryCategories> persistent = {}, peak = {};
    for (const PersistentEntry& entry : layout_.entries) {
      persistent[static_cast<size_t>(entry.category)] += entry.bytes;
    }
    for (const Block& block : program_.plan.blocks) {
      const bool is_live = block.first_step <= peak_step_ && peak_step_ <= block.last_step;
      if (is_live) peak[static_cast<size_t>(block.category)] += block.bytes;
    }
    double x = kColumnLeft;
    for (size_t c = 0; c < kNumMemoryCategories; ++c, x += 160) {
      add("<rect x=\"%g\" y=\"%g\" width=\"14\" height=\"14\" fill=\"%s\"/>\n", x, kLegendTop,
          kColors[c]);
      text(x + 20, kLegendTop + 12, name(static_cast<MemoryCategory>(c)),
           {.size = 13, .extra = "font-weight=\"bold\""});
      text(x + 20, kLegendTop + 29, "persistent " + amount(persistent[c]), {});
      text(x + 20, kLegendTop + 45, "at the peak " + amount(peak[c]), {});
    }
    add_line_legend(x);
  }

  static std::string amount(int64_t bytes) { return bytes == 0 ? "-" : format_bytes(bytes); }

  void add_line_legend(double x) {
    line(x, kLegendTop + 7, x + 26, kLegendTop + 7, "stroke=\"#111\" stroke-width=\"1.6\"");
    text(x + 33, kLegendTop + 12, absl::StrFormat("live bytes, the most at step %d", peak_step_),
         {});
    line(x, kLegendTop + 24, x + 26, kLegendTop + 24,
         "stroke=\"#c1121f\" stroke-width=\"1.5\" stroke-dasharray=\"7 4\"");
    text(x + 33, kLegendTop + 29, "end of the planned region", {});
    for (size_t p = 0; p < kPhases.size(); ++p) {
      const double at = x + 90 * static_cast<double>(p);
      add("<rect x=\"%g\" y=\"%g\" width=\"14\" height=\"10\" fill=\"%s\"/>\n", at, kLegendTop + 37,
          kPhaseColors[p]);
      text(at + 20, kLegendTop + 46, kPhaseNames[p], {});
    }
  }

  const Program& program_;
  const PersistentLayout& layout_;
  std::vector<int64_t> live_;      // by step
  std::vector<StepPhase> phases_;  // by step
  double num_steps_;
  double top_bytes_;
  int peak_step_ = 0;
  std::string svg_;
};

}  // namespace

std::string plan_svg(const Program& program, const PersistentLayout& layout,
                     const std::string& title) {
  return Picture(program, layout, title).take();
}

}  // namespace caravan
