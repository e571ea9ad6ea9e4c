// Reads events in stored form: a MessagePack array of arrays of strings.
#pragma once

#include <stdexcept>
#include <string_view>
#include <vector>

#include "patterns.hpp"

namespace kato {

// What is wrong with given events; the message is for the caller.
class MalformedEvents : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// Appends the tokens of `bytes`, which they point into. MalformedEvents when it is anything else than one array of
// non-empty arrays of UTF-8 strings, or empty.
void read_events(std::string_view bytes, std::vector<Token>& tokens);

// Whether it is valid UTF-8 (shortest forms, no surrogates).
bool is_utf8(std::string_view text);

}  // namespace kato
