#include "launch/ckpt_command.h"

#include <ctime>
#include <filesystem>
#include <iostream>
#include <memory>

#include "absl/strings/str_format.h"
#include "checkpoint/directory.h"
#include "checkpoint/manifest.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRowFormat = "%-10s %15s %9s %11s %6s  %-20s %s\n";

// 1234567 -> "1,234,567"
std::string grouped(int64_t value) {
  std::string digits = absl::StrFormat("%d", value);
  const size_t first = value < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string format_age(int64_t seconds) {
  if (seconds < 0) return "-";
  if (seconds < 120) return absl::StrFormat("%ds", seconds);
  if (seconds < 2 * 3600) return absl::StrFormat("%dm", seconds / 60);
  if (seconds < 48 * 3600) return absl::StrFormat("%dh", seconds / 3600);
  return absl::StrFormat("%dd", seconds / 86400);
}

// "dp=2 tp=1"
std::string format_layout(const Manifest& manifest) {
  std::string text;
  for (const auto& [axis, size] : manifest.header.layout) {
    absl::StrAppendFormat(&text, "%s%s=%d", text.empty() ? "" : " ", axis, size);
  }
  return text.empty() ? "-" : text;
}

std::string format_row(const std::string& path, const Manifest& manifest, int64_t unix_time) {
  const CheckpointHeader& header = manifest.header;
  const auto loss = header.scalars.find("loss");
  return absl::StrFormat(kRowFormat, grouped(header.step), grouped(header.tokens),
                         loss == header.scalars.end() ? "-" : absl::StrFormat("%.4f", loss->second),
                         format_bytes(total_bytes(manifest)),
                         format_age(unix_time - header.unix_time), format_layout(manifest),
                         fs::path(path).filename().string());
}

bool is_checkpoint(const fs::path& folder) { return fs::exists(folder / kManifestName); }

// The step folders that the user means.
std::vector<StepFolder> find_checkpoints(const std::string& run_or_folder) {
  fs::path path = fs::path(run_or_folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "runs/a/"
  if (!fs::is_directory(path)) {
    throw checkpoint_error(path.string() + ": no such folder; give a run's output_dir");
  }
  if (is_checkpoint(path)) return {{path.string(), 0}};
  std::vector<StepFolder> found = list_step_folders((path / "checkpoints").string());
  if (found.empty()) found = list_step_folders(path.string());
  return found;
}

std::string format_time(int64_t unix_time) {
  const std::time_t time = unix_time;
  std::tm parts{};
  if (gmtime_r(&time, &parts) == nullptr) return "-";
  char text[64];
  return std::string(text, std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &parts));
}

void show_tensors(const Manifest& manifest, std::ostream& out) {
  out << absl::StrFormat("\n%-44s %-5s %-18s %11s  %s\n", "tensor", "dtype", "shape", "size",
                         "shards");
  for (const TensorRecord& tensor : manifest.tensors) {
    const int64_t bytes = num_elements(tensor.shape) * size_bytes(tensor.dtype);
    out << absl::StrFormat("%-44s %-5s %-18s %11s  %d\n", tensor.name, name(tensor.dtype),
                           to_string(tensor.shape), format_bytes(bytes), tensor.shards.size());
  }
}

}  // namespace

void list_checkpoints(const std::string& run_or_folder, int64_t unix_time, std::ostream& out) {
  const std::vector<StepFolder> found = find_checkpoints(run_or_folder);
  if (found.empty()) {
    out << run_or_folder << ": no checkpoints yet\n";
    return;
  }
  out << absl::StrFormat(kRowFormat, "step", "tokens", "loss", "size", "age", "layout", "folder");
  for (const StepFolder& entry : found) {
    try {
      out << format_row(entry.path, read_committed(entry.path), unix_time);
    } catch (const Error& error) {
      out << "unusable: " << error.what() << "\n";  // the others are still worth seeing
    }
  }
}

void show_checkpoint(const std::string& checkpoint, bool with_tensors, std::ostream& out) {
  if (!is_checkpoint(checkpoint)) {
    throw checkpoint_error(
        absl::StrFormat("%s: not a checkpoint (no %s); `caravan ckpt ls RUN` lists them",
                        checkpoint, kManifestName));
  }
  const Manifest manifest = read_committed(checkpoint);
  const CheckpointHeader& header = manifest.header;
  const auto line = [&](std::string_view key, const std::string& value) {
    out << absl::StrFormat("%-14s %s\n", key, value);
  };
  int64_t num_values = 0;
  for (const TensorRecord& tensor : manifest.tensors) num_values += num_elements(tensor.shape);
  line("checkpoint", checkpoint);
  line("step", grouped(header.step));
  line("tokens", grouped(header.tokens));
  line("saved", format_time(header.unix_time));
  line("run", header.run_id);
  line("layout", format_layout(manifest));
  line("config hash", header.config_hash);
  line("written by", "caravan " + header.tool_version);
  line("files",
       absl::StrFormat("%d, %s", manifest.files.size(), format_bytes(total_bytes(manifest))));
  line("tensors", absl::StrFormat("%d, %s values", manifest.tensors.size(), grouped(num_values)));
  for (const auto& [key, value] : header.counters) line(key, grouped(value));
  for (const auto& [key, value] : header.scalars) line(key, absl::StrFormat("%.9g", value));
  if (with_tensors) show_tensors(manifest, out);
}

void add_ckpt_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("ckpt", "look at checkpoints");
  command->require_subcommand(1);

  const auto folder = std::make_shared<std::string>();  // CLI11 keeps references to the values
  CLI::App* list = command->add_subcommand("ls", "list the checkpoints of a run");
  list->add_option("RUN_OR_DIR", *folder, "output_dir of a run, or a folder of checkpoints")
      ->required();
  list->callback([folder] { list_checkpoints(*folder, std::time(nullptr), std::cout); });

  const auto checkpoint = std::make_shared<std::string>();
  const auto with_tensors = std::make_shared<bool>(false);
  CLI::App* show = command->add_subcommand("show", "what one checkpoint holds");
  show->add_option("CKPT", *checkpoint, "folder of one checkpoint")->required();
  show->add_flag("--tensors", *with_tensors, "list every tensor");
  show->callback(
      [checkpoint, with_tensors] { show_checkpoint(*checkpoint, *with_tensors, std::cout); });
}

}  // namespace caravan
