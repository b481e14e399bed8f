// Command vault-for-tests is a real Vault for the tests of providers/, and for nothing else: the core of HashiCorp's own
// module, with its storage in memory, without TLS, on loopback ports that the system picks. It prints one line of JSON
// when it is there, and ends when its standard input does.
//
// Vault is under the Business Source License. Nothing of it is part of SealedEnv: this module is built where tests run,
// and is in no image.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	log "github.com/hashicorp/go-hclog"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// What tests are told.
type ready struct {
	Address string `json:"address"`
	// Of a second core on the same storage. It is a standby, and has no way to hand requests on.
	Standby string `json:"standby"`
	// The root token.
	Token string `json:"token"`
	// The one key that unseals it.
	Key string `json:"key"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vault-for-tests:", err)
		os.Exit(1)
	}
}

func run() error {
	// Tests do what Vault calls errors, so it says nothing of them unless it is asked to.
	level := log.LevelFromString(os.Getenv("VAULT_LOG_LEVEL"))
	if level == log.NoLevel {
		level = log.Off
	}
	logger := log.New(&log.LoggerOptions{Level: level, Output: os.Stderr})
	storage, err := inmem.NewInmemHA(nil, logger)
	if err != nil {
		return fmt.Errorf("making the storage: %w", err)
	}
	active, address, err := serve(storage, logger)
	if err != nil {
		return err
	}
	config := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	made, err := active.Initialize(context.Background(), &vault.InitParams{BarrierConfig: config, RecoveryConfig: config})
	if err != nil {
		return fmt.Errorf("initialising Vault: %w", err)
	}
	key := made.SecretShares[0]
	if err := unseal(active, key); err != nil {
		return err
	}
	if err := awaitActive(active); err != nil {
		return err
	}
	standby, standbyAddress, err := serve(storage, logger)
	if err != nil {
		return err
	}
	if err := unseal(standby, key); err != nil {
		return err
	}
	line := ready{Address: address, Standby: standbyAddress, Token: made.RootToken, Key: hex.EncodeToString(key)}
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		return fmt.Errorf("saying where it is: %w", err)
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// A core that is sealed, and a server for it.
func serve(storage physical.Backend, logger log.Logger) (*vault.Core, string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("listening: %w", err)
	}
	address := "http://" + listener.Addr().String()
	shared, ok := storage.(physical.HABackend)
	if !ok {
		return nil, "", fmt.Errorf("the storage takes only one core")
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:        storage,
		HAPhysical:      shared,
		RedirectAddr:    address,
		DisableMlock:    true,
		Logger:          logger,
		BuiltinRegistry: builtin{},
		LogicalBackends: map[string]logical.Factory{
			"kv":     kv.Factory,
			"leases": leases,
		},
		CredentialBackends: map[string]logical.Factory{
			"approle":    approle.Factory,
			"kubernetes": kubernetes.Factory,
		},
	})
	if err != nil {
		return nil, "", fmt.Errorf("making a core: %w", err)
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{},
	})
	go func() {
		fmt.Fprintln(os.Stderr, "vault-for-tests: the server ended:", http.Serve(listener, handler))
	}()
	return core, address, nil
}

func unseal(core *vault.Core, key []byte) error {
	// The core wipes what it is given.
	if open, err := core.Unseal(append([]byte(nil), key...)); err != nil || !open {
		return fmt.Errorf("unsealing Vault: %v", err)
	}
	return nil
}

// All that this Vault has built in.
type builtin struct{}

var factories = map[consts.PluginType]map[string]logical.Factory{
	consts.PluginTypeSecrets:    {"kv": kv.Factory, "leases": leases},
	consts.PluginTypeCredential: {"approle": approle.Factory, "kubernetes": kubernetes.Factory},
}

func (builtin) Contains(name string, kind consts.PluginType) bool {
	_, ok := factories[kind][name]
	return ok
}

func (builtin) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	factory, ok := factories[kind][name]
	return func() (interface{}, error) { return factory, nil }, ok
}

func (builtin) Keys(kind consts.PluginType) []string {
	var names []string
	for name := range factories[kind] {
		names = append(names, name)
	}
	return names
}

func (b builtin) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, b.Contains(name, kind)
}

func (builtin) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

// A core that is unsealed first becomes active by itself, but not at once.
func awaitActive(core *vault.Core) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !core.Sealed() && core.ActiveTime() != (time.Time{}) {
			return nil
		}
	}
	return errors.New("the first core did not become active within a minute")
}
