//! The process around ClickHouse's engine: loads the library and hands it a command line, as its own program would.

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Runs `clickhouse-local` with these arguments until it ends; returns its exit code.
#[allow(unsafe_code)] // Loading a C++ engine and calling its entry point cannot be expressed without.
pub fn run(library: &Path, arguments: &[std::ffi::OsString]) -> Result<i32> {
    let program = std::iter::once(Ok(CString::from(c"clickhouse")));
    let given = arguments.iter().map(|text| CString::new(text.as_bytes()).context("an argument holds a NUL byte"));
    let mut owned: Vec<Vec<u8>> =
        program.chain(given).map(|text| text.map(CString::into_bytes_with_nul)).collect::<Result<_>>()?;
    let mut argv: Vec<*mut c_char> = owned.iter_mut().map(|text| text.as_mut_ptr().cast()).collect();
    argv.push(std::ptr::null_mut());
    let count = c_int::try_from(owned.len()).context("too many arguments")?;
    // SAFETY: the library's constructors are ClickHouse's own; its hash was checked when it was downloaded.
    let engine =
        unsafe { libloading::Library::new(library) }.with_context(|| format!("loading {}", library.display()))?;
    // SAFETY: `int chdb_query_cmdline(int, char **)`; argv is NULL-terminated, writable and outlives the call. It is
    // called once, from the main thread, as `main` would be.
    let code = unsafe {
        let entry: libloading::Symbol<'_, unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int> =
            engine.get(b"chdb_query_cmdline\0").context("the library does not export chdb_query_cmdline")?;
        entry(count, argv.as_mut_ptr())
    };
    // Unloading would run destructors under threads that still live.
    std::mem::forget(engine);
    Ok(code)
}
