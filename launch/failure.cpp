#include "launch/failure.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <nlohmann/json.hpp>

#include "launch/clock.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

std::string to_json(const Failure& failure) {
  nlohmann::ordered_json object;
  object["rank"] = failure.rank;
  object["host"] = failure.host;
  object["step"] = failure.step;
  object["phase"] = failure.phase;
  object["message"] = failure.message;
  object["exit_code"] = static_cast<int>(failure.exit_code);
  object["time"] = unix_seconds();
  // Messages may quote a file that is not UTF-8.
  return object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// Whether the file was made. A full disk has room for its name, not for the text: then it is empty,
// which still tells the other ranks that one has failed and spoken.
bool make_file(const std::string& path, const std::string& text) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) return false;
  const bool is_whole = write(file, text.data(), text.size()) == std::ssize(text);
  const bool is_sound = is_whole || ftruncate(file, 0) == 0;
  return (close(file) == 0) && is_sound;
}

// A link is made or it is not, also between machines, and never shows half a file.
Claim claim(const std::string& output_dir, const Failure& failure) {
  const std::string path = failure_path(output_dir);
  const std::string temporary =
      absl::StrFormat("%s.%s.%d.%d", path, failure.host, getpid(), gettid());
  if (!make_file(temporary, to_json(failure))) {
    unlink(temporary.c_str());
    return has_failure(output_dir) ? Claim::later : Claim::unwritable;
  }
  if (link(temporary.c_str(), path.c_str()) == 0) {
    unlink(temporary.c_str());
    return Claim::first;
  }
  const int reason = errno;
  unlink(temporary.c_str());
  if (reason == EEXIST) return Claim::later;
  // A filesystem without links: only the name is certain then.
  if (make_file(path, to_json(failure))) return Claim::first;
  return has_failure(output_dir) ? Claim::later : Claim::unwritable;
}

}  // namespace

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

std::string failure_path(const std::string& output_dir) {
  return (fs::path(output_dir) / "error.json").string();
}

void remove_failure(const std::string& output_dir) { unlink(failure_path(output_dir).c_str()); }

bool has_failure(const std::string& output_dir) {
  return access(failure_path(output_dir).c_str(), F_OK) == 0;
}

Claim claim_failure(const std::string& output_dir, const Failure& failure) noexcept {
  try {
    return claim(output_dir, failure);
  } catch (const std::exception&) {  // no memory left
    return Claim::unwritable;
  }
}

void print_failure(const std::string& message) noexcept {
  const std::string line = "caravan: error: " + message + "\n";
  [[maybe_unused]] const ssize_t nowhere_to_complain =
      write(STDERR_FILENO, line.data(), line.size());
}

ErrorText describe_error(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& known) {
    return {known.code(), one_line(known.what())};
  } catch (const std::bad_alloc&) {
    return {ExitCode::internal, "out of memory; give a smaller runtime.memory_limit"};
  } catch (const std::exception& other) {
    return {ExitCode::internal, "internal: " + one_line(other.what())};
  } catch (...) {
    return {ExitCode::internal, "internal: an exception of unknown type"};
  }
}

}  // namespace caravan
