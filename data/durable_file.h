// Files that are there whole or not at all, also after a power cut. Paths in, `Error` out (with the
// exit code of the caller); no state, any thread.
#pragma once

#include <string>
#include <string_view>

#include "runtime/error.h"

namespace caravan {

// "No space left on device (errno 28)"
std::string errno_text(int number);

// The whole file, which must be a regular one: a FIFO, a device or a folder is an error at once.
// `limit_bytes` guards against the wrong file being named.
std::string read_file(const std::string& path, size_t limit_bytes, ExitCode error_code);

// Writes path + ".tmp", fsyncs it, renames it to `path` and fsyncs the folder.
void write_file_durably(const std::string& path, std::string_view contents, ExitCode error_code);

// rename(2), then fsync of the folder of `to`. Files must have been fsynced before.
void rename_durably(const std::string& from, const std::string& to, ExitCode error_code);

// Makes the names in a folder durable.
void sync_folder(const std::string& path, ExitCode error_code);

}  // namespace caravan
