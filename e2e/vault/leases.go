package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// A secrets engine of these tests' own that gives leases. The engines that Vault brings need a database, a cloud or a
// broker for that. What it gives opens nothing; that it is given, made longer and taken back is Vault's own doing.
//
//	read creds/NAME?ttl=SECONDS   a name and a password, for that long, and at most an hour
//	read fixed/NAME               the same, for a minute, and not renewable
//	read revoked/NAME             how many leases of that name Vault has taken back
func leases(ctx context.Context, config *logical.BackendConfig) (logical.Backend, error) {
	b := &framework.Backend{BackendType: logical.TypeLogical}
	name := &framework.FieldSchema{Type: framework.TypeString}
	gives := func(kind string) *framework.Secret {
		return &framework.Secret{Type: kind, Revoke: revoke, DefaultDuration: time.Minute}
	}
	renewable, fixed := gives("renewable"), gives("fixed")
	renewable.Renew = func(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
		return &logical.Response{Secret: req.Secret}, nil
	}
	b.Secrets = []*framework.Secret{renewable, fixed}
	read := func(pattern string, do framework.OperationFunc) *framework.Path {
		return &framework.Path{
			Pattern: pattern + "/" + framework.GenericNameRegex("name"),
			Fields:  map[string]*framework.FieldSchema{"name": name, "ttl": {Type: framework.TypeDurationSecond}},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: &framework.PathOperation{Callback: do},
			},
		}
	}
	give := func(secret *framework.Secret) framework.OperationFunc {
		return func(_ context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
			name := data.Get("name").(string)
			response := secret.Response(
				map[string]interface{}{"username": name, "password": "opens-nothing"},
				map[string]interface{}{"name": name},
			)
			if ttl := data.Get("ttl").(int); ttl > 0 {
				response.Secret.TTL = time.Duration(ttl) * time.Second
			}
			response.Secret.MaxTTL = time.Hour
			return response, nil
		}
	}
	b.Paths = []*framework.Path{
		read("creds", give(renewable)),
		read("fixed", give(fixed)),
		read("revoked", func(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
			count, err := revoked(ctx, req.Storage, data.Get("name").(string))
			if err != nil {
				return nil, err
			}
			return &logical.Response{Data: map[string]interface{}{"count": count}}, nil
		}),
	}
	if err := b.Setup(ctx, config); err != nil {
		return nil, fmt.Errorf("setting up the engine of leases: %w", err)
	}
	return b, nil
}

func revoked(ctx context.Context, storage logical.Storage, name string) (int, error) {
	entry, err := storage.Get(ctx, "revoked/"+name)
	if err != nil || entry == nil {
		return 0, err
	}
	var count int
	err = entry.DecodeJSON(&count)
	return count, err
}

// Vault calls this once for each lease that ends.
func revoke(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	name, _ := req.Secret.InternalData["name"].(string)
	count, err := revoked(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	entry, err := logical.StorageEntryJSON("revoked/"+name, count+1)
	if err != nil {
		return nil, err
	}
	return nil, req.Storage.Put(ctx, entry)
}
