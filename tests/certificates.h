/* SPDX-License-Identifier: MIT
 * Certificates for tests, made by the openssl command in a directory of their own. */
#ifndef CERTIFICATES_H
#define CERTIFICATES_H

/* NAME.pem is a certificate, NAME.key its key:
 *     ca           a CA, which has signed all of the following except the last three
 *     server       for localhost, 127.0.0.1 and ::1
 *     named        for localhost only
 *     elsewhere    for elsewhere.example
 *     wild         for *.example.test
 *     nameless     for the common name "localhost" alone
 *     expired      like server, but expired yesterday
 *     chained      like server, signed by an intermediate CA, which is in the same file
 *     client       for a client; client-both.pem also holds the key; client-locked.key has a passphrase
 *     self         like server, but self-signed
 *     stranger-ca  another CA
 *     stranger     like server, but signed by stranger-ca */
void certificates_make(void);
void certificates_remove(void);

/* The path of one of these files, in one of sixteen buffers that are used in turn. */
const char *certificate(const char *file);

#endif
