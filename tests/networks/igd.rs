//! A router that forwards ports to those who ask (UPnP's Internet Gateway Device), in a gate of the test's own: it answers searches,
//! describes itself, and really forwards, by rules of the kernel.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common::namespace::Namespace;

/// Where searches go.
const SEARCHES: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1900);

/// The address of the gate inside.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);

const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

/// Before any other forwarding.
const RULES: &str = "table ip igd {
    chain in { type nat hook prerouting priority dstnat - 1; }
}";

/// How often those who wait look whether the router is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// How the router is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should be.
    Obliging,
    /// It knows no leases.
    ForEver,
    /// It lets nobody change anything.
    Strict,
    /// It says that its outer address is this one.
    Mistaken(Ipv4Addr),
}

/// What it was asked to do.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) action: String,
    pub(crate) arguments: BTreeMap<String, String>,
}

impl Asked {
    pub(crate) fn says(&self, name: &str) -> &str {
        self.arguments.get(name).map_or("", String::as_str)
    }
}

/// Such a router, gone when this is dropped.
pub(crate) struct Igd {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

struct State {
    gate: Arc<Namespace>,
    /// The outer address.
    address: String,
    manner: Manner,
    asked: Mutex<Vec<Asked>>,
    /// Outer ports, and where they lead.
    forwards: Mutex<BTreeMap<u16, (String, u16)>>,
    is_gone: AtomicBool,
}

impl Igd {
    /// In this gate, which has this address outside. `taken` leads elsewhere already.
    pub(crate) fn start(gate: &Arc<Namespace>, address: &str, manner: Manner, taken: &[u16]) -> Result<Igd, String> {
        gate.run("nft", &["-f", "-"], RULES)?;
        let forwards = taken.iter().map(|port| (*port, ("192.168.7.99".to_owned(), *port))).collect();
        let state = Arc::new(State {
            gate: Arc::clone(gate),
            address: address.to_owned(),
            manner,
            asked: Mutex::default(),
            forwards: Mutex::new(forwards),
            is_gone: AtomicBool::new(false),
        });
        let sockets = gate.inside(|| {
            let searches = UdpSocket::bind(SEARCHES)?;
            searches.join_multicast_v4(&SEARCHES.0, &INSIDE)?;
            searches.set_read_timeout(Some(LOOK))?;
            let listener = TcpListener::bind((INSIDE, 0))?;
            listener.set_nonblocking(true)?;
            Ok::<_, std::io::Error>((searches, listener))
        });
        let (searches, listener) = sockets.map_err(|error| format!("the router has no sockets: {error}"))?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let (of_searches, of_requests) = (Arc::clone(&state), Arc::clone(&state));
        let threads = vec![
            std::thread::spawn(move || of_searches.answer_searches(&searches, port)),
            std::thread::spawn(move || of_requests.serve(&listener)),
        ];
        Ok(Igd { state, threads })
    }

    /// All that it was asked so far to do.
    pub(crate) fn asked(&self, action: &str) -> Vec<Asked> {
        let asked = self.state.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| asked.action == action).cloned().collect()
    }

    /// Which outer ports lead where now.
    pub(crate) fn forwards(&self) -> BTreeMap<u16, (String, u16)> {
        self.state.forwards.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Igd {
    fn drop(&mut self) {
        self.state.is_gone.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                println!("a thread of the router has panicked");
            }
        }
        if let Err(reason) = self.state.gate.run("nft", &["delete", "table", "ip", "igd"], "") {
            println!("the router's rules stay: {reason}");
        }
    }
}

impl State {
    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    fn answer_searches(&self, socket: &UdpSocket, port: u16) {
        let mut buffer = [0; 2048];
        while !self.is_gone() {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let search = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if search.starts_with("M-SEARCH") && search.contains("InternetGatewayDevice:1") {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nEXT:\r\nLOCATION: http://{INSIDE}:{port}/root.xml\r\n\
                     ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nUSN: uuid:1::igd\r\n\r\n"
                );
                // Who has asked may be gone.
                let _ = socket.send_to(answer.as_bytes(), from);
            }
        }
    }

    fn serve(&self, listener: &TcpListener) {
        while !self.is_gone() {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.converse(stream) {
                        println!("the router could not answer: {error}");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOOK / 5),
                Err(error) => println!("the router cannot accept: {error}"),
            }
        }
    }

    fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(&stream);
        let (mut line, mut action, mut length) = (String::new(), String::new(), 0);
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap_or(0),
                "soapaction" => {
                    action = value.trim().trim_matches('"').rsplit('#').next().unwrap_or_default().to_owned()
                }
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (status, answer) = match path.as_str() {
            "/root.xml" => (200, description()),
            "/scpd.xml" => (200, actions()),
            "/control" => self.act(&action, &String::from_utf8_lossy(&body)),
            _ => (404, String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status} It is\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            answer.len()
        );
        (&stream).write_all((head + &answer).as_bytes())
    }

    fn act(&self, action: &str, body: &str) -> (u16, String) {
        let arguments: BTreeMap<String, String> = ACTIONS
            .iter()
            .flat_map(|(_, names)| names.iter())
            .filter_map(|name| Some(((*name).to_owned(), between(body, &format!("<{name}>"), &format!("</{name}>"))?)))
            .collect();
        let asked = Asked { action: action.to_owned(), arguments };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        let port = asked.says("NewExternalPort").parse().unwrap_or(0);
        let to = (asked.says("NewInternalClient").to_owned(), asked.says("NewInternalPort").parse().unwrap_or(0));
        let mut forwards = self.forwards.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match action {
            "GetExternalIPAddress" => {
                let address = match self.manner {
                    Manner::Mistaken(address) => address.to_string(),
                    _ => self.address.clone(),
                };
                Ok(format!("<NewExternalIPAddress>{address}</NewExternalIPAddress>"))
            }
            _ if self.manner == Manner::Strict => Err((606, "Action not authorized")),
            "AddPortMapping" if self.manner == Manner::ForEver && asked.says("NewLeaseDuration") != "0" => {
                Err((725, "OnlyPermanentLeasesSupported"))
            }
            "AddPortMapping" if forwards.get(&port).is_some_and(|there| there.0 != to.0) => {
                Err((718, "ConflictInMappingEntry"))
            }
            "AddPortMapping" => {
                forwards.insert(port, to);
                Ok(String::new())
            }
            "DeletePortMapping" => forwards.remove(&port).map(|_| String::new()).ok_or((714, "NoSuchEntryInArray")),
            _ => Err((401, "Invalid Action")),
        };
        self.forward(&forwards);
        match outcome {
            Ok(result) => {
                (200, envelope(&format!("<u:{action}Response xmlns:u=\"{SERVICE}\">{result}</u:{action}Response>")))
            }
            Err((code, what)) => (500, envelope(&fault(code, what))),
        }
    }

    /// Really does it.
    fn forward(&self, forwards: &BTreeMap<u16, (String, u16)>) {
        let address = &self.address;
        let rule = |(from, (client, to)): (&u16, &(String, u16))| {
            format!("add rule ip igd in ip daddr {address} tcp dport {from} dnat to {client}:{to}\n")
        };
        let rules: String =
            std::iter::once("flush chain ip igd in\n".to_owned()).chain(forwards.iter().map(rule)).collect();
        self.gate.run("nft", &["-f", "-"], &rules).expect("the router's rules change");
    }
}

fn between(text: &str, from: &str, to: &str) -> Option<String> {
    Some(text.split_once(from)?.1.split_once(to)?.0.to_owned())
}

fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>{body}</s:Body></s:Envelope>"
    )
}

fn fault(code: u16, what: &str) -> String {
    format!(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
         <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>{code}</errorCode>\
         <errorDescription>{what}</errorDescription></UPnPError></detail></s:Fault>"
    )
}

fn description() -> String {
    let device = |kind: &str, inside: &str| {
        format!("<device><deviceType>urn:schemas-upnp-org:device:{kind}:1</deviceType>{inside}</device>")
    };
    let service = format!(
        "<serviceList><service><serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>\
         <controlURL>/control</controlURL><eventSubURL>/events</eventSubURL><SCPDURL>/scpd.xml</SCPDURL></service></serviceList>"
    );
    let connection = device("WANConnectionDevice", &service);
    let wan = device("WANDevice", &format!("<deviceList>{connection}</deviceList>"));
    let root = device("InternetGatewayDevice", &format!("<deviceList>{wan}</deviceList>"));
    format!("<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">{root}</root>")
}

/// What it can be asked, and with what.
const ACTIONS: [(&str, &[&str]); 3] = [
    (
        "AddPortMapping",
        &[
            "NewRemoteHost",
            "NewExternalPort",
            "NewProtocol",
            "NewInternalPort",
            "NewInternalClient",
            "NewEnabled",
            "NewPortMappingDescription",
            "NewLeaseDuration",
        ],
    ),
    ("DeletePortMapping", &["NewRemoteHost", "NewExternalPort", "NewProtocol"]),
    ("GetExternalIPAddress", &[]),
];

fn actions() -> String {
    let argument = |name: &&str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
    let action = |(name, names): &(&str, &[&str])| {
        let arguments: String = names.iter().map(argument).collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let all: String = ACTIONS.iter().map(action).collect();
    format!(
        "<?xml version=\"1.0\"?><scpd xmlns=\"urn:schemas-upnp-org:service-1-0\"><actionList>{all}</actionList></scpd>"
    )
}
