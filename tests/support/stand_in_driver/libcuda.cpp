// The entry points of CUDA's driver that a kernel's way through CuPy takes (test equipment).
//
// Nothing is executed here: modules, functions and launches are handed to driver.py. What it
// refuses comes back to CuPy as an error code, and CuPy asks for its text.
//
// The signatures are those of cuda.h, with every handle as a void*.
#include <stdio.h>

extern "C" {

struct GfgpDriver {
  // Each returns 0, or a code that stands for the text it has set with gfgp_set_error.
  int (*load)(const void* image, void** module);
  int (*find)(void* module, const char* name, void** function);
  int (*launch)(void* function, const unsigned* grid, const unsigned* block, unsigned shared_bytes,
                void* stream, void** parameters);
};

static GfgpDriver driver;
static char error_text[4096];

void gfgp_set_driver(const GfgpDriver* given) { driver = *given; }
void gfgp_set_error(const char* text) { snprintf(error_text, sizeof error_text, "%s", text); }

int cuModuleLoadData(void** module, const void* image) { return driver.load(image, module); }
int cuModuleUnload(void*) { return 0; }  // modules are kept: CuPy may unload after Python ended
int cuModuleGetFunction(void** function, void* module, const char* name) {
  return driver.find(module, name, function);
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   void* stream, void** parameters, void**) {
  unsigned grid[] = {grid_x, grid_y, grid_z}, block[] = {block_x, block_y, block_z};
  return driver.launch(function, grid, block, shared_bytes, stream, parameters);
}
int cuGetErrorName(int, const char** text) {
  *text = "STAND_IN_DRIVER";
  return 0;
}
int cuGetErrorString(int, const char** text) {
  *text = error_text;
  return 0;
}

}  // extern "C"
