#include "bindings/module.h"

#include "base/parallel.h"
#include "bindings/interruptible.h"

namespace salient::python {

NB_MODULE(_core, module) {
  module.doc() = "What of Salient is written in C++: see the package salient for the parts meant for users.";
  module.attr("version") = SALIENT_VERSION;
  nb::set_leak_warnings(false);  // a library never prints; a model may be alive when the interpreter ends
  bind_errors(module);
  bind_tensors(module);
  bind_tokenizer(module);
  bind_model(module);
  bind_oneshot(module);
  bind_measure(module);
  bind_weights(module);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&Interruptible::end_all));
  module.def("set_num_threads", &set_thread_count, nb::arg("count"),
             "How many threads all work uses from now on (1 to 1024).");
  module.def(
      "get_num_threads", &thread_count,
      "How many threads work uses: SALIENT_THREADS, else the processors that this process may run on.");
}

}  // namespace salient::python
