/*! hub-client 0.1.0 | MIT | hub-client.LICENSE.txt */
"use strict";(()=>{})();
