// What the library calls of Windows, declared by hand as <windows.h> has it: a program that includes that header too,
// before or after, gets it whole, with its own switches.
#pragma once

#if defined(_WIN32)

extern "C" {
__declspec(dllimport) void* __stdcall CreateFileMappingA(void*, struct _SECURITY_ATTRIBUTES*, unsigned long,
                                                         unsigned long, unsigned long, const char*);
__declspec(dllimport) void* __stdcall MapViewOfFile(void*, unsigned long, unsigned long, unsigned long,
                                                    unsigned long long);
__declspec(dllimport) int __stdcall UnmapViewOfFile(const void*);
__declspec(dllimport) int __stdcall CloseHandle(void*);
__declspec(dllimport) int __stdcall MoveFileExA(const char*, const char*, unsigned long);
}

#endif
