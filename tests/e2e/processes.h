// Processes of this machine, found by their command lines; zombies have none.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace caravan {

using CommandLine = std::vector<std::string>;  // its words: the program, then the arguments

// In the order of /proc.
std::vector<pid_t> find_processes(const std::function<bool(const CommandLine&)>& is_wanted);

bool has_word(const CommandLine& line, const std::string& word);
bool is_program(const CommandLine& line, const std::string& name);  // at whatever path

void send_signal(const std::vector<pid_t>& processes, int signal);

// Looks every millisecond. False after so many seconds, or when there is no point in waiting.
bool wait_for(
    const std::function<bool()>& condition, double seconds,
    const std::function<bool()>& give_up = [] { return false; });

}  // namespace caravan
