// Python's view of the index: the only file that knows Python. The contract is src/kato/_core.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "index.hpp"
#include "msgpack.hpp"
#include "sieve.hpp"

namespace nb = nanobind;
using namespace kato;

namespace {

// Texts of Python strings; `owner` keeps them alive, also while the GIL is released.
struct Texts {
  nb::object owner;
  std::vector<std::string_view> views;
};

std::string_view text_of(nb::handle object) {
  if (!PyUnicode_Check(object.ptr())) throw nb::type_error("expected a str");
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(object.ptr(), &size);
  if (!data) throw nb::python_error();  // UnicodeEncodeError is a ValueError
  return {data, static_cast<std::size_t>(size)};
}

std::string_view bytes_of(nb::handle object) {
  if (!PyBytes_Check(object.ptr())) throw nb::type_error("expected bytes");
  return {PyBytes_AS_STRING(object.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(object.ptr()))};
}

nb::object tuple_of(nb::handle sequence) {
  if (PyUnicode_Check(sequence.ptr())) throw nb::type_error("expected a sequence, not a str");
  PyObject* tuple = PySequence_Tuple(sequence.ptr());
  if (!tuple) throw nb::python_error();
  return nb::steal(tuple);
}

Texts texts_of(nb::handle sequence) {
  Texts texts{tuple_of(sequence), {}};
  for (nb::handle item : nb::borrow<nb::tuple>(texts.owner)) texts.views.push_back(text_of(item));
  return texts;
}

std::optional<Name> name_of(nb::handle text) { return parse_name(text_of(text)); }

Name valid_name(nb::handle text) {
  const auto name = name_of(text);
  if (!name) throw nb::value_error("a pattern's name is 40 lowercase hexadecimal digits");
  return *name;
}

std::int64_t frequency_of(std::int64_t frequency) {
  if (frequency < 0) throw nb::value_error("a frequency is not negative");
  return frequency;
}

std::uint8_t flags_of(std::int64_t flags) {
  if (flags < 0 || flags > 255) throw nb::value_error("flags are one byte");
  return static_cast<std::uint8_t>(flags);
}

std::uint32_t clamped(std::int64_t number) {
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(number, 0, 0xFFFFFFFF));
}

nb::object python_name(const Name& name) {
  const std::string digits = format_name(name);
  return nb::steal(PyUnicode_DecodeASCII(digits.data(), static_cast<Py_ssize_t>(digits.size()), nullptr));
}

nb::list python_names(const std::vector<Name>& names) {
  nb::list list;
  for (const Name& name : names) list.append(python_name(name));
  return list;
}

template <class T>
nb::object column(std::vector<T>&& values) {
  auto* kept = new std::vector<T>(std::move(values));
  const nb::capsule owner(kept, [](void* vector) noexcept { delete static_cast<std::vector<T>*>(vector); });
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner));
}

// The Python form of an ensemble.
struct PythonEnsemble {
  nb::object patterns, symbols, total_frequency, names, events, frequency, flags, length, lcs, matched, blocks,
      past_events, present_events, match_offsets, match_positions, present_offsets, present_symbols, local_symbols,
      member_frequency, state_symbols;
  std::size_t rows = 0;
};

// Strings that were shown to Python once, so that every row that holds a symbol shares one object. Guarded by the GIL.
class Strings {
 public:
  nb::handle get(const Index::Reader& reader, SymbolId id) {
    if (generation_ != reader.generation()) {
      strings_.clear();
      generation_ = reader.generation();
    }
    if (id >= strings_.size()) strings_.resize(reader.patterns().symbols().size());
    nb::object& string = strings_[id];
    if (!string.is_valid()) {
      const std::string_view text = reader.patterns().symbols()[id].view();
      string = nb::steal(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), nullptr));
      if (!string.is_valid()) throw nb::python_error();
    }
    return string;
  }

  // Pattern `id` as a tuple of tuples of strings.
  nb::object events(const Index::Reader& reader, PatternId id) {
    const auto sequence = reader.patterns().sequence(id);
    nb::object events = nb::steal(PyTuple_New(count_events(sequence)));
    Py_ssize_t number = 0;
    for (std::size_t begin = 0; begin < sequence.size();) {
      std::size_t end = begin + 1;
      while (end < sequence.size() && !starts_event(sequence[end])) ++end;
      PyObject* event = PyTuple_New(static_cast<Py_ssize_t>(end - begin));
      if (!event) throw nb::python_error();
      PyTuple_SET_ITEM(events.ptr(), number++, event);
      for (std::size_t i = begin; i < end; ++i) {
        const nb::handle string = get(reader, symbol_of(sequence[i]));
        PyTuple_SET_ITEM(event, static_cast<Py_ssize_t>(i - begin), string.inc_ref().ptr());
      }
      begin = end;
    }
    return events;
  }

  std::size_t bytes() const { return strings_.capacity() * sizeof(nb::object); }

 private:
  std::vector<nb::object> strings_;
  std::uint64_t generation_ = 0;
};

class PythonIndex {
 public:
  std::size_t size() const { return index_.totals().patterns; }

  bool contains(nb::str text) const {
    const auto name = name_of(text);
    return name && index_.find(*name);
  }

  void insert(nb::str text, nb::handle events, std::int64_t frequency, std::int64_t flags) {
    const Name name = valid_name(text);
    const nb::object owner = tuple_of(events);
    std::vector<nb::object> owners;
    std::vector<Token> tokens;
    for (nb::handle event : nb::borrow<nb::tuple>(owner)) {
      owners.push_back(tuple_of(event));
      bool first = true;
      for (nb::handle symbol : nb::borrow<nb::tuple>(owners.back())) {
        tokens.push_back({text_of(symbol), first});
        first = false;
      }
      if (first) throw nb::value_error("an event without symbols");
    }
    if (tokens.empty()) throw nb::value_error("a pattern without events");
    const Index::Turn turn = take_turn();
    if (!index_.insert(turn, name, tokens, frequency_of(frequency), flags_of(flags))) {
      throw nb::value_error("there is a pattern of that name");
    }
  }

  void load(nb::handle names, nb::handle events, nb::handle frequencies, nb::handle flags) {
    const nb::object columns[] = {tuple_of(names), tuple_of(events), tuple_of(frequencies), tuple_of(flags)};
    const Py_ssize_t count = PyTuple_GET_SIZE(columns[0].ptr());
    for (const nb::object& column : columns) {
      if (PyTuple_GET_SIZE(column.ptr()) != count) throw nb::value_error("the columns differ in length");
    }
    std::vector<StoredPattern> patterns(static_cast<std::size_t>(count));
    for (Py_ssize_t row = 0; row < count; ++row) {
      StoredPattern& pattern = patterns[static_cast<std::size_t>(row)];
      const std::string_view name = bytes_of(PyTuple_GET_ITEM(columns[0].ptr(), row));
      if (name.size() != pattern.name.size()) throw nb::value_error("a stored name has 20 bytes");
      std::copy(name.begin(), name.end(), pattern.name.begin());
      pattern.events = bytes_of(PyTuple_GET_ITEM(columns[1].ptr(), row));
      pattern.frequency = frequency_of(integer(PyTuple_GET_ITEM(columns[2].ptr(), row)));
      pattern.flags = flags_of(integer(PyTuple_GET_ITEM(columns[3].ptr(), row)));
    }
    std::optional<Name> twice;
    {
      const nb::gil_scoped_release released;
      const Index::Turn turn = index_.turn();
      twice = index_.load(turn, patterns);
    }
    if (twice) throw nb::value_error("there is a pattern of that name");
  }

  void set_frequency(nb::str text, std::int64_t frequency) {
    const auto name = name_of(text);
    frequency_of(frequency);
    if (!name || !index_.set_frequency(take_turn(), *name, frequency)) throw unknown(text);
  }

  void set_flags(nb::str text, std::int64_t flags) {
    const auto name = name_of(text);
    const std::uint8_t byte = flags_of(flags);
    if (!name || !index_.set_flags(take_turn(), *name, byte)) throw unknown(text);
  }

  bool remove(nb::str text) {
    const auto name = name_of(text);
    return name && index_.remove(take_turn(), *name);
  }

  nb::object events(nb::str text) {
    const auto name = name_of(text);
    const Index::Reader reader(index_);
    const auto id = name ? index_.find(*name) : std::nullopt;
    return id ? strings_.events(reader, *id) : nb::none();
  }

  PythonEnsemble search(nb::handle state, double threshold, std::int64_t limit, std::int64_t min_length,
                        std::int64_t max_length, std::int64_t min_overlap, double min_jaccard) {
    if (threshold != threshold || min_jaccard != min_jaccard) throw nb::value_error("not a number");
    const Texts texts = texts_of(state);
    const Options options{threshold,           clamped(limit),       clamped(min_length),
                          clamped(max_length), clamped(min_overlap), min_jaccard};
    return answer([&](const Index::Reader& reader) { return index_.search(reader, texts.views, options); });
  }

  PythonEnsemble search_first(nb::str symbol, std::int64_t limit) {
    const std::string_view text = text_of(symbol);
    return answer([&](const Index::Reader& reader) { return index_.search_first(reader, text, clamped(limit)); });
  }

  PythonEnsemble gather(nb::handle names, nb::handle state) {
    const Texts wanted = texts_of(names);
    const Texts texts = texts_of(state);
    std::vector<Name> parsed;
    for (const std::string_view text : wanted.views) {
      if (const auto name = parse_name(text)) parsed.push_back(*name);
    }
    return answer([&](const Index::Reader& reader) { return index_.gather(reader, parsed, texts.views); });
  }

  nb::list candidates(nb::handle symbols) {
    Texts texts;
    std::optional<std::vector<std::string_view>> wanted;
    if (!symbols.is_none()) {
      texts = texts_of(symbols);
      wanted = texts.views;
    }
    std::vector<Name> names;
    {
      const nb::gil_scoped_release released;
      const Index::Reader reader(index_);
      names = index_.candidates(reader, wanted);
    }
    return python_names(names);
  }

  nb::list page(nb::handle after, std::int64_t limit, nb::handle symbol, std::int64_t min_frequency) {
    std::optional<std::string> start;
    std::optional<std::string_view> wanted;
    if (!after.is_none()) start = text_of(after);
    if (!symbol.is_none()) wanted = text_of(symbol);
    std::vector<Name> names;
    {
      const nb::gil_scoped_release released;
      const Index::Reader reader(index_);
      names = index_.page(reader, start, clamped(limit), wanted, min_frequency);
    }
    return python_names(names);
  }

  nb::list vocabulary() {
    const Index::Reader reader(index_);
    std::vector<SymbolId> ids;
    {
      const nb::gil_scoped_release released;
      ids = index_.vocabulary(reader);
    }
    nb::list list;
    for (const SymbolId id : ids) list.append(strings_.get(reader, id));
    return list;
  }

  nb::list symbol_statistics(nb::handle symbols) const {
    const Texts texts = texts_of(symbols);
    nb::list list;
    for (const auto& [frequency, members] : index_.symbol_statistics(texts.views)) {
      list.append(nb::make_tuple(frequency, members));
    }
    return list;
  }

  nb::tuple totals() const {
    const Totals totals = index_.totals();
    return nb::make_tuple(totals.patterns, totals.frequency, totals.occurrences, totals.symbols);
  }

  std::size_t memory_bytes() const { return sizeof *this - sizeof index_ + index_.bytes() + strings_.bytes(); }

 private:
  // A short change on an event loop's thread should not give the GIL away, unless it has to wait for a long one.
  Index::Turn take_turn() {
    Index::Turn turn = index_.try_turn();
    if (!turn) {
      const nb::gil_scoped_release released;
      turn = index_.turn();
    }
    return turn;
  }

  static std::int64_t integer(nb::handle object) {
    const long long value = PyLong_AsLongLong(object.ptr());
    if (value == -1 && PyErr_Occurred()) throw nb::python_error();
    return value;
  }

  static nb::builtin_exception unknown(nb::str name) { return nb::key_error(name.c_str()); }

  // Runs `find` without the GIL and gives its ensemble Python's form.
  template <class Find>
  PythonEnsemble answer(Find&& find) {
    // The reader is let go with the GIL held, when no number is needed any more.
    const Index::Reader reader(index_);
    Ensemble found;
    {
      const nb::gil_scoped_release released;
      found = find(reader);
    }
    PythonEnsemble answer;
    answer.rows = found.ids.size();
    answer.patterns = nb::int_(found.totals.patterns);
    answer.symbols = nb::int_(found.totals.symbols);
    answer.total_frequency = nb::int_(found.totals.frequency);
    nb::list names;
    nb::list events;
    for (const PatternId id : found.ids) {
      names.append(python_name(reader.patterns()[id].name));
      events.append(strings_.events(reader, id));
    }
    nb::list locals;
    for (const SymbolId id : found.local_symbols) locals.append(strings_.get(reader, id));
    answer.names = names;
    answer.events = events;
    answer.local_symbols = locals;
    answer.frequency = column(std::move(found.frequency));
    answer.flags = column(std::move(found.flags));
    answer.length = column(std::move(found.length));
    answer.lcs = column(std::move(found.lcs));
    answer.matched = column(std::move(found.matched));
    answer.blocks = column(std::move(found.blocks));
    answer.past_events = column(std::move(found.past_events));
    answer.present_events = column(std::move(found.present_events));
    answer.match_offsets = column(std::move(found.match_offsets));
    answer.match_positions = column(std::move(found.match_positions));
    answer.present_offsets = column(std::move(found.present_offsets));
    answer.present_symbols = column(std::move(found.present_symbols));
    answer.member_frequency = column(std::move(found.member_frequency));
    answer.state_symbols = column(std::move(found.state_symbols));
    return answer;
  }

  Index index_;
  Strings strings_;
};

}  // namespace

NB_MODULE(_core, module) {
  module.doc() = "The compiled pattern index of one node.";
  module.def("simd", [] { return kInstructions; });

  nb::class_<PythonEnsemble>(module, "Ensemble")
      .def("__len__", [](const PythonEnsemble& ensemble) { return ensemble.rows; })
      .def_ro("patterns", &PythonEnsemble::patterns)
      .def_ro("symbols", &PythonEnsemble::symbols)
      .def_ro("total_frequency", &PythonEnsemble::total_frequency)
      .def_ro("names", &PythonEnsemble::names)
      .def_ro("events", &PythonEnsemble::events)
      .def_ro("frequency", &PythonEnsemble::frequency)
      .def_ro("flags", &PythonEnsemble::flags)
      .def_ro("length", &PythonEnsemble::length)
      .def_ro("lcs", &PythonEnsemble::lcs)
      .def_ro("matched", &PythonEnsemble::matched)
      .def_ro("blocks", &PythonEnsemble::blocks)
      .def_ro("past_events", &PythonEnsemble::past_events)
      .def_ro("present_events", &PythonEnsemble::present_events)
      .def_ro("match_offsets", &PythonEnsemble::match_offsets)
      .def_ro("match_positions", &PythonEnsemble::match_positions)
      .def_ro("present_offsets", &PythonEnsemble::present_offsets)
      .def_ro("present_symbols", &PythonEnsemble::present_symbols)
      .def_ro("local_symbols", &PythonEnsemble::local_symbols)
      .def_ro("member_frequency", &PythonEnsemble::member_frequency)
      .def_ro("state_symbols", &PythonEnsemble::state_symbols);

  nb::class_<PythonIndex>(module, "Index")
      .def(nb::init<>())
      .def("__len__", &PythonIndex::size)
      .def("__contains__", &PythonIndex::contains, nb::arg("name"))
      .def("insert", &PythonIndex::insert, nb::arg("name"), nb::arg("events"), nb::arg("frequency"),
           nb::arg("flags") = 0)
      .def("load", &PythonIndex::load, nb::arg("names"), nb::arg("events"), nb::arg("frequencies"), nb::arg("flags"))
      .def("set_frequency", &PythonIndex::set_frequency, nb::arg("name"), nb::arg("frequency"))
      .def("set_flags", &PythonIndex::set_flags, nb::arg("name"), nb::arg("flags"))
      .def("remove", &PythonIndex::remove, nb::arg("name"))
      .def("events", &PythonIndex::events, nb::arg("name"))
      .def("search", &PythonIndex::search, nb::arg("state"), nb::arg("threshold"), nb::arg("limit"),
           nb::arg("min_length") = 0, nb::arg("max_length") = 4294967295, nb::arg("min_overlap") = 0,
           nb::arg("min_jaccard") = 0.0)
      .def("search_first", &PythonIndex::search_first, nb::arg("symbol"), nb::arg("limit"))
      .def("candidates", &PythonIndex::candidates, nb::arg("symbols").none())
      .def("gather", &PythonIndex::gather, nb::arg("names"), nb::arg("state"))
      .def("page", &PythonIndex::page, nb::arg("after").none(), nb::arg("limit"), nb::arg("symbol").none(),
           nb::arg("min_frequency"))
      .def("vocabulary", &PythonIndex::vocabulary)
      .def("symbol_statistics", &PythonIndex::symbol_statistics, nb::arg("symbols"))
      .def("totals", &PythonIndex::totals)
      .def("memory_bytes", &PythonIndex::memory_bytes);
}
