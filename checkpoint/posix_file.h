// What checkpoints need of files and folders beyond data/durable_file.h: replacing a folder, and
// reading without following links. Errors are checkpoint errors that name the path and the errno.
#pragma once

#include <cstdint>
#include <string>

#include "data/readable_file.h"

namespace caravan {

// Gives folder `from` the name `to`. When `to` exists, the new content replaces it and the name
// that the old content has now is returned ("" otherwise). Atomic where the file system can swap
// two names; elsewhere (NFS) a crash between two renames leaves only the old content's new name.
std::string publish_folder(const std::string& from, const std::string& to);

// The whole content of a regular file (not a link) of at most `max_bytes`.
std::string read_small_file(const std::string& path, int64_t max_bytes);

// Bytes that this user may still write to the file system of a folder.
int64_t available_bytes(const std::string& folder);

// Bytes of a regular file (not a link).
int64_t file_size_bytes(const std::string& path);

}  // namespace caravan
