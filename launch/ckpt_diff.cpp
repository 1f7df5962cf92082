// `caravan ckpt diff`: header, configuration, and tensors of two checkpoints.
#include <algorithm>
#include <map>
#include <ostream>
#include <set>

#include "absl/strings/str_format.h"
#include "checkpoint/diff.h"
#include "launch/ckpt_command.h"
#include "launch/config.h"
#include "launch/log.h"
#include "launch/nearest_name.h"
#include "runtime/error.h"

namespace caravan {
namespace {

using Pairs = std::map<std::string, std::string>;

// All of a header that says something about the run, as text; not when and by what it was written.
Pairs header_values(const CheckpointHeader& header) {
  Pairs values = {{"step", format_count(header.step)}, {"tokens", format_count(header.tokens)}};
  for (const auto& [key, value] : header.layout) {
    values["layout." + key] = absl::StrFormat("%d", value);
  }
  for (const auto& [key, value] : header.counters) {
    values["counters." + key] = absl::StrFormat("%d", value);
  }
  for (const auto& [key, value] : header.scalars) {
    values["scalars." + key] = absl::StrFormat("%.17g", value);
  }
  for (const auto& [key, value] : header.texts) {
    if (key != "config") values["texts." + key] = value;
  }
  return values;
}

void show_change(const std::string& key, const std::string& a, const std::string& b,
                 std::ostream& out) {
  out << absl::StrFormat("  %-36s %s -> %s\n", printable(key), printable(a), printable(b));
}

void diff_headers(const CheckpointHeader& a, const CheckpointHeader& b, std::ostream& out) {
  const Pairs left = header_values(a), right = header_values(b);
  Pairs keys = left;
  keys.insert(right.begin(), right.end());
  const auto value_of = [](const Pairs& values, const std::string& key) {
    const auto found = values.find(key);
    return found == values.end() ? std::string("absent") : found->second;
  };
  out << "header\n";
  bool same = true;
  for (const auto& [key, unused] : keys) {
    const std::string before = value_of(left, key), after = value_of(right, key);
    if (before == after) continue;
    show_change(key, before, after, out);
    same = false;
  }
  if (same) out << "  no difference\n";
}

// Those of different versions of the program may not be readable: that is a line, not an error.
void diff_configurations(const CheckpointHeader& a, const CheckpointHeader& b, std::ostream& out) {
  const auto left = a.texts.find("config"), right = b.texts.find("config");
  out << "configuration\n";
  if (left == a.texts.end() || right == b.texts.end()) {
    const bool neither = left == a.texts.end() && right == b.texts.end();
    out << (neither ? "  none in either\n" : "  only in one of them\n");
    return;
  }
  try {
    const std::vector<ConfigChange> changes =
        changed_keys(parse_config(left->second, "configuration of A"),
                     parse_config(right->second, "configuration of B"));
    for (const ConfigChange& change : changes) {
      show_change(change.path, change.before, change.after, out);
    }
    if (changes.empty()) out << "  no difference\n";
  } catch (const Error& error) {
    out << "  cannot be compared: " << error.what() << "\n";
  }
}

std::string describe(const TensorRecord& tensor) {
  return absl::StrFormat("%s%s", name(tensor.dtype), to_string(tensor.shape));
}

std::string describe(const TensorDifference& difference) {
  std::string text =
      absl::StrFormat("%s of %s elements differ", format_count(difference.num_different),
                      format_count(difference.num_elements));
  if (difference.num_different > difference.num_nan) {
    absl::StrAppendFormat(&text, ", by at most %.9g", difference.largest);
  }
  if (difference.num_nan > 0) {
    absl::StrAppendFormat(&text, ", %s with a NaN", format_count(difference.num_nan));
  }
  return text;
}

// What is said of a tensor that one of them has; "" when both have it with the same bits.
std::string diff_tensor(CheckpointReader& a, CheckpointReader& b, const std::string& name) {
  if (!b.has_tensor(name)) return "only in A: " + describe(a.tensor(name));
  if (!a.has_tensor(name)) return "only in B: " + describe(b.tensor(name));
  const std::string left = describe(a.tensor(name)), right = describe(b.tensor(name));
  if (left != right) return left + " -> " + right;
  const TensorDifference difference = compare_tensor(a, b, name);
  return difference.is_same() ? "" : describe(difference);
}

void diff_tensors(CheckpointReader& a, CheckpointReader& b, std::ostream& out) {
  std::set<std::string> names;
  size_t width = 0;
  for (const CheckpointReader* reader : {&a, &b}) {
    for (const TensorRecord& tensor : reader->manifest().tensors) {
      names.insert(tensor.name);
      width = std::max(width, tensor.name.size());
    }
  }
  out << "tensors\n";
  int64_t num_different = 0;
  for (const std::string& tensor : names) {
    const std::string text = diff_tensor(a, b, tensor);
    if (text.empty()) continue;
    ++num_different;
    out << absl::StrFormat("  %-*s %s", static_cast<int>(width), tensor, text)
        << std::endl;  // seen while it runs
  }
  if (num_different == 0) {
    out << absl::StrFormat("identical: all %d tensors, bit for bit\n", names.size());
  } else {
    out << absl::StrFormat("different: %d of %d tensors\n", num_different, names.size());
  }
}

}  // namespace

void diff_checkpoints(const std::string& a, const std::string& b, std::ostream& out) {
  for (const std::string& folder : {a, b}) require_checkpoint(folder);
  CheckpointReader left(a), right(b);
  out << absl::StrFormat("A %s\nB %s\n", a, b);
  diff_headers(left.manifest().header, right.manifest().header, out);
  diff_configurations(left.manifest().header, right.manifest().header, out);
  diff_tensors(left, right, out);
}

}  // namespace caravan
