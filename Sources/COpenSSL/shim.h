// Static-inline faces of the OpenSSL calls that are macros; TLS adds to this file.
#pragma once
#include <openssl/err.h>
#include <openssl/evp.h>
