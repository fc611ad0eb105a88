// Functions and classes known in every template.
#include <ctime>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

constexpr Int kMaxRange = 100000;  // items; the same bound as the reference implementation's sandbox

Value global_range(Interpreter& in, CallArgs& args) {
  const Bound bound("range", args, {"start", "stop", "step"}, 1);
  const Int start = bound.has(1) ? require_int(bound[0]) : 0;
  const Int stop = require_int(bound.has(1) ? bound[1] : bound[0]);
  const Int step = bound.integer(2, 1);
  if (step == 0) fail_value("range() arg 3 must not be zero");
  const Int limit = Int{1} << 100;
  for (Int bound_value : {start, stop, step})
    if (bound_value > limit || bound_value < -limit) fail_value("range() argument is too large");
  const Int distance = step > 0 ? stop - start : start - stop;
  const Int stride = step > 0 ? step : -step;
  const Int size = distance <= 0 ? 0 : (distance + stride - 1) / stride;
  if (size > kMaxRange)
    fail(ErrorKind::kLimit, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  return Value(make_object<RangeObject>(in.budget(), 0, start, stop, step, static_cast<size_t>(size)));
}

// Calls set(key, value) for what dict() and namespace() take: a mapping or pairs, then named arguments.
template <typename Set>
void each_entry(Interpreter& in, CallArgs& args, const Set& set) {
  if (args.positional.size() > 1) fail_type("dict expected at most 1 argument");
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is(Type::kDict)) {
      for (const auto& [key, value] : source.get<DictObject>().entries) set(key, value);
    } else {
      for (const Value& pair : items_of(in.budget(), source)) {
        const std::vector<Value> parts = items_of(in.budget(), pair);
        if (parts.size() != 2) fail_value("dictionary update sequence element has not length 2");
        set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) set(in.string(name), value);
}

Value global_dict(Interpreter& in, CallArgs& args) {
  DictBuilder dict(in.budget());
  each_entry(in, args, [&](const Value& key, const Value& value) { dict.set(key, value); });
  return dict.take();
}

Value global_namespace(Interpreter& in, CallArgs& args) {
  DictBuilder unique(in.budget());
  each_entry(in, args, [&](const Value& key, const Value& value) { unique.set(key, value); });
  const Value entries = unique.take();
  const Value space = in.new_namespace();
  auto& object = space.get<NamespaceObject>();
  for (const auto& [key, value] : entries.get<DictObject>().entries) {
    in.budget().allocate(96);
    object.charged += 96;
    object.attributes.emplace_back(in.text_of(key), value);
  }
  return space;
}

Value global_cycler(Interpreter& in, CallArgs& args) {
  if (args.positional.empty()) fail(ErrorKind::kRuntime, "at least one item has to be provided");
  auto cycler = make_object<CyclerObject>(in.budget(), args.positional.size() * sizeof(Value));
  for (const Value& item : args.positional) adopt(*cycler, item);
  cycler->items = args.positional;
  return Value(std::move(cycler));
}

Value global_joiner(Interpreter& in, CallArgs& args) {
  const Bound bound("joiner", args, {"sep"});
  auto joiner = make_object<JoinerObject>(in.budget(), 0);
  joiner->separator = bound.has(0) ? bound[0] : in.string(", ");
  adopt(*joiner, joiner->separator);
  return Value(std::move(joiner));
}

Value global_raise_exception(Interpreter& in, CallArgs& args) {
  const Bound bound("raise_exception", args, {"message"}, 1);
  fail(ErrorKind::kRaised, in.text_of(bound[0]));
}

Value global_strftime_now(Interpreter& in, CallArgs& args) {
  const Bound bound("strftime_now", args, {"format"}, 1);
  if (!bound[0].is_string()) fail_type("strftime() argument 1 must be str");
  const std::string& format = bound[0].text();
  if (format.size() > 1000) fail_value("the date format is too long");
  const int64_t now_ms = in.clock().unix_time_ms();
  std::string expanded = "x";  // tells an empty result from a buffer that is too small
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] == '%' && i + 1 < format.size() && format[i + 1] == 'f') {
      const std::string micros = std::to_string(now_ms % 1000 * 1000);
      expanded += std::string(6 - micros.size(), '0') + micros;
      ++i;
    } else if (format[i] == '%' && i + 1 < format.size()) {
      expanded += format.substr(i++, 2);
    } else {
      expanded.push_back(format[i]);
    }
  }
  const std::time_t seconds = now_ms / 1000;
  std::tm parts{};
  localtime_r(&seconds, &parts);
  std::string out(expanded.size() * 64 + 256, '\0');
  const size_t length = std::strftime(out.data(), out.size(), expanded.c_str(), &parts);
  if (length == 0) fail_value("the date format makes too long a text");
  return in.string(out.substr(1, length - 1));
}

Value global_lipsum(Interpreter&, CallArgs&) {
  fail(ErrorKind::kSecurity, "a chat template must not use lipsum: its text is random");
}

struct Global {
  std::string_view name;
  Value (*function)(Interpreter&, CallArgs&);
};
constexpr Global kGlobals[] = {
    {"cycler", global_cycler},       {"dict", global_dict},
    {"joiner", global_joiner},       {"lipsum", global_lipsum},
    {"namespace", global_namespace}, {"raise_exception", global_raise_exception},
    {"range", global_range},         {"strftime_now", global_strftime_now},
};

}  // namespace

bool find_global(Interpreter& in, std::string_view name, Value& value) {
  for (const Global& global : kGlobals) {
    if (global.name != name) continue;
    value = Value(make_object<CallableObject>(in.budget(), 0, std::string(name), global.function));
    return true;
  }
  return false;
}

}  // namespace tessera::text::jinja
