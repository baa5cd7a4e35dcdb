"""A small reverse proxy for HTTP: what outside clients reach by the shared address, from `Ingress` objects to Services.

It is ours because no well-kept ingress controller could be built here from its Go module, and it is meant to be small:
HTTP/1.1 on one port, hosts and paths of Ingress objects of its class, no TLS, no WebSockets. Whoever needs more deploys
the ingress controller of his choice as a `NodeAgent` under the same address; nothing else of this project knows it.
"""
